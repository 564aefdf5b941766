//! The compiled kernels: one image per `.cu` file, with code for `sm_80` and `sm_90a`, and PTX that the driver compiles for GPUs
//! that come after; or for `sm_90a` only, where the file says so. `scripts/cuda-images.sh` writes them; CI checks that they are
//! what the sources give.

/// On a boundary that the driver may read words from.
#[repr(align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! images {
    ($($name:literal),* $(,)?) => {
        /// File name without its ending, and image.
        const IMAGES: &[(&str, &Aligned<[u8]>)] =
            &[$(($name, &Aligned(*include_bytes!(concat!("images/", $name, ".fatbin"))))),*];
    };
}

images![
    "activation",
    "attention",
    "attention_bf16",
    "cross_entropy",
    "elementwise",
    "embedding",
    "few_queries",
    "few_rows",
    "layer_norm",
    "matmul_bf16",
    "matmul_f32",
    "matmul_hopper",
    "optim",
    "rms_norm",
    "rope",
    "sums",
];

/// The image of a `.cu` file.
pub(super) fn image(file: &str) -> Option<&'static [u8]> {
    IMAGES.iter().find(|(name, _)| *name == file).map(|(_, image)| &image.0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Names of the files with this ending under `folder`.
    fn names(folder: &Path, ending: &str) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(names(&path, ending));
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path.file_stem().unwrap().to_string_lossy().into_owned());
            }
        }
        found.sort();
        found
    }

    #[test]
    fn every_source_has_its_image() {
        let sources = names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "cu");
        let images: Vec<&str> = super::IMAGES.iter().map(|(name, _)| *name).collect();
        assert_eq!(sources, images);
        // the mark of a fat binary
        assert!(super::IMAGES.iter().all(|(_, image)| image.0.starts_with(&0xba55_ed50_u32.to_le_bytes())));
    }
}
