//! A matrix as the hardware of Hopper copies it to shared memory, a box at a time.

use half::bf16;

use super::{Arg, Slice};

/// A row-major matrix in the memory of the device, and the box of it that is copied at one time: rows of
/// [`BYTES_OF_BOX_ROW`], whose groups of 16 bytes are exchanged in shared memory ("128-byte swizzle").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Of the first number.
    pub address: u64,
    /// What the numbers are.
    pub element: Element,
    /// Numbers of a row.
    pub width: u32,
    /// How many rows there are.
    pub rows: u32,
    /// Rows of a box.
    pub box_rows: u32,
}

/// Bytes of a row of a box: what one turn of the exchange takes.
pub const BYTES_OF_BOX_ROW: u32 = 128;

/// Numbers that are copied in boxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
}

impl Element {
    /// Bytes of one.
    pub fn bytes(self) -> u32 {
        match self {
            Element::F32 => 4,
            Element::Bf16 => 2,
        }
    }
}

/// A type of numbers that are copied in boxes.
pub trait InBoxes {
    /// Which it is.
    const ELEMENT: Element;
}

impl InBoxes for f32 {
    const ELEMENT: Element = Element::F32;
}

impl InBoxes for bf16 {
    const ELEMENT: Element = Element::Bf16;
}

impl TensorMap {
    /// `x`, rows of `width` numbers, in boxes of so many rows. `None` where the hardware cannot copy it: it takes no empty
    /// matrix, wants every row on a boundary of 16 bytes, and counts rows and numbers of a row in 31 bits.
    ///
    /// Panics when a row is not whole.
    pub fn new<T: InBoxes>(x: Slice<T>, width: usize, box_rows: u32) -> Option<TensorMap> {
        let (element, n, Arg(address)) = (T::ELEMENT, x.len(), x.into());
        if n == 0 {
            return None;
        }
        assert!(n.is_multiple_of(width), "{n} numbers are no rows of {width}");
        let bytes = width * element.bytes() as usize;
        let [width, rows] = [width, n / width].map(|n| i32::try_from(n).ok().map(i32::cast_unsigned));
        let is_aligned = address.is_multiple_of(16) && bytes.is_multiple_of(16);
        is_aligned.then_some(TensorMap { address, element, width: width?, rows: rows?, box_rows })
    }

    /// Numbers of a row, and rows.
    pub fn sizes(&self) -> [u64; 2] {
        [self.width.into(), self.rows.into()]
    }

    /// Bytes from one row to the next.
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.width) * u64::from(self.element.bytes())
    }

    /// Numbers of a row of a box, and its rows.
    pub fn box_sizes(&self) -> [u32; 2] {
        [BYTES_OF_BOX_ROW / self.element.bytes(), self.box_rows]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(address: u64, n: usize, width: usize) -> Option<TensorMap> {
        // SAFETY: nobody reads it
        TensorMap::new(unsafe { Slice::<f32>::from_raw(address, n) }, width, 64)
    }

    #[test]
    fn rows_lie_on_16_bytes_and_are_not_too_many() {
        let map_of_rows = map(0x1010, 36, 12).expect("three rows of 48 bytes");
        assert_eq!((map_of_rows.sizes(), map_of_rows.row_bytes()), ([12, 3], 48));
        assert_eq!(map_of_rows.box_sizes(), [32, 64]);
        let refused = [
            (0x1008, 36, 12),
            (0x1010, 36, 6),
            (0x1010, 0, 12),
            (0x1010, 0, 0),
            (0x1010, 1 << 31, 1 << 31),
            (0x1010, 1 << 33, 4),
        ];
        for (address, n, width) in refused {
            assert_eq!(map(address, n, width), None, "{n} at {address:x}, rows of {width}");
        }
    }

    #[test]
    #[should_panic(expected = "37 numbers are no rows of 12")]
    fn rows_are_whole() {
        map(0x1010, 37, 12);
    }
}
