//! Page-locked memory that copies to the device pass through.
//!
//! The device reads such memory while the CPU goes on, so nobody waits for a copy. There are two halves: one is written while
//! copies from the other are still going on. Whoever comes back to a half waits for the event that was recorded when it was
//! left; so a large copy goes through in parts, and a small one takes a few bytes of the half where the last one ended.

use std::ptr;

use cudarc::driver::sys;

use super::{Driver, Failed};

/// Bytes of a half: 0.2 ms of a fast bus.
const HALF: usize = 8 << 20;
/// Copies begin on boundaries of so many bytes, as fast ones do.
const BOUNDARY: usize = 64;

/// The two halves, and how much of the current one is taken.
pub(super) struct Staging {
    memory: *mut u8,
    /// Recorded when a half is left.
    left: [sys::CUevent; 2],
    current: usize,
    taken: usize,
}

// SAFETY: page-locked memory and events may be used by any thread
unsafe impl Send for Staging {}

impl Staging {
    fn new(driver: &Driver) -> Result<Staging, Failed> {
        let (mut memory, mut left) = (ptr::null_mut(), [ptr::null_mut(); 2]);
        let without_clock = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        for event in &mut left {
            // SAFETY: what is pointed to is there until the call returns
            driver.call("cuEventCreate", |api| unsafe { (api.create_event)(event, without_clock) })?;
        }
        // SAFETY: as above
        driver.call("page-locked memory", |api| unsafe { (api.allocate_host)(&mut memory, 2 * HALF, 0) })?;
        Ok(Staging { memory: memory.cast(), left, current: 0, taken: 0 })
    }

    /// Queues copies of `bytes` to an address of the device's memory, where there is room for so many.
    ///
    /// # Errors
    /// A copy is refused.
    pub(super) fn send(
        place: &mut Option<Staging>,
        driver: &Driver,
        mut to: sys::CUdeviceptr,
        bytes: &[u8],
    ) -> Result<(), Failed> {
        let staging = match place {
            Some(staging) => staging,
            None => place.insert(Staging::new(driver)?),
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            if staging.taken >= HALF {
                staging.change_halves(driver)?;
            }
            let n = rest.len().min(HALF - staging.taken);
            let (part, others) = rest.split_at(n);
            let from = staging.copy(part);
            // SAFETY: the caller vouches for the room; the half is not written again before its copies are done
            driver.call("copying to the GPU", |api| unsafe {
                (api.copy_to_device)(to, from.cast(), n, driver.stream())
            })?;
            (to, rest) = (to + n as u64, others);
        }
        Ok(())
    }

    /// Puts bytes, for which there is room, where the last ones end.
    fn copy(&mut self, bytes: &[u8]) -> *const u8 {
        // SAFETY: `taken` and what is added stay within the current half of the memory
        let to = unsafe { self.memory.add(self.current * HALF + self.taken) };
        // SAFETY: as above, and nobody else writes there: `bytes` are not this memory, which nobody is lent
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        self.taken = (self.taken + bytes.len()).next_multiple_of(BOUNDARY);
        to
    }

    /// Goes on in the other half, when the copies from it are done.
    fn change_halves(&mut self, driver: &Driver) -> Result<(), Failed> {
        let [left, next] = [self.current, 1 - self.current].map(|half| self.left[half]);
        // SAFETY: the events and the stream are ours; an event that was never recorded is one that has happened
        driver.call("copying to the GPU", |api| unsafe { (api.record_event)(left, driver.stream()) })?;
        // SAFETY: as above
        driver.call("copying to the GPU", |api| unsafe { (api.wait_for_event)(next) })?;
        (self.current, self.taken) = (1 - self.current, 0);
        Ok(())
    }
}
