//! Weights stay where they are: in a read-only map of their file.

mod common;

use common::{FIXTURES, Fixture, folder, loss_and_gradient};
use tensor::Storage;

#[test]
fn matrices_are_the_mapped_bytes() {
    for f in FIXTURES.map(Fixture::open) {
        let checkpoint = f.model.checkpoint();
        let files: Vec<_> = checkpoint.files().iter().map(|file| file.bytes().as_ptr_range()).collect();
        let in_file = |bytes: &[u8]| files.iter().any(|file| file.contains(&bytes.as_ptr()));
        assert!(matches!(f.model.embedding().storage(), Storage::Mapped(_)), "{}", f.name);
        let head = match f.model.head().matrix().tensor.elements() {
            kernels::Elements::F32(x) => in_file(bytemuck::cast_slice(x)),
            kernels::Elements::F16(x) => in_file(bytemuck::cast_slice(x)),
            kernels::Elements::Bf16(x) => in_file(bytemuck::cast_slice(x)),
            kernels::Elements::Blocks(x) => in_file(x.bytes()),
        };
        assert!(head, "{}: the head is a copy", f.name);
        for name in checkpoint.names() {
            if let Ok(tensor) = checkpoint.tensor_of_any_shape(name) {
                assert!(matches!(tensor.storage(), Storage::Mapped(_)), "{} {name}", f.name);
            }
        }
        assert_eq!(checkpoint.copied_bytes(), 0, "{}", f.name);
    }
}

#[test]
fn a_training_step_leaves_the_file_as_it_was() {
    let f = Fixture::open("llama-untied-sharded-f32");
    let hash = |f: &Fixture| {
        f.model.checkpoint().files().iter().map(|file| file.bytes().to_vec()).collect::<Vec<_>>()
    };
    let before = hash(&f);
    loss_and_gradient(&f.model, &f.batch(f.n_virtual(), 1.0), &f.tensor("prompt.init"));
    assert!(hash(&f) == before);
    let on_disk: Vec<_> =
        f.model.checkpoint().files().iter().map(|file| std::fs::read(file.path()).unwrap()).collect();
    assert!(on_disk == before);
}

#[cfg(target_os = "linux")]
#[test]
fn the_kernel_says_the_map_is_read_only() {
    let f = Fixture::open("gpt2-tied-f32");
    let path = folder("gpt2-tied-f32").join("model.safetensors").canonicalize().unwrap();
    loss_and_gradient(&f.model, &f.batch(f.n_virtual(), 1.0), &f.tensor("prompt.init"));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let ours: Vec<&str> = maps.lines().filter(|line| line.ends_with(path.to_str().unwrap())).collect();
    assert!(!ours.is_empty());
    for line in ours {
        let permissions = line.split_whitespace().nth(1).unwrap();
        assert!(permissions.starts_with("r--"), "{line}");
    }
}
