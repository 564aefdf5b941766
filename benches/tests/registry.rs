//! The registry computes what the references say, and notices when it does not.

use kernels::Isa;
use prompt_tuning_benches::case::{Kernel, verify};
use prompt_tuning_benches::{cases, peers};

/// Cases above this take too long for a test; `roofline` verifies them before it times them.
const FLOPS: f64 = 5e8;
const BYTES: usize = 64 << 20;

#[test]
fn every_kernel_computes_what_its_reference_says() {
    let mut kernels = std::collections::BTreeSet::new();
    for case in cases::all().iter().filter(|case| case.work.flops < FLOPS && case.work.bytes() < BYTES) {
        let mut kernel = (case.make)();
        kernels.insert(case.kernel);
        for isa in Isa::available() {
            verify(&mut *kernel, |kernel| kernel.run(isa))
                .unwrap_or_else(|why| panic!("{} ({}): {why}", case.name(), isa.name()));
        }
        for peer in peers::all().iter().filter(|_| case.kernel.starts_with("matmul") && case.dtype == "f32") {
            let run = |kernel: &mut dyn Kernel| {
                let (product, out) = kernel.product().expect("an f32 product");
                (peer.run)(product, out);
            };
            verify(&mut *kernel, run).unwrap_or_else(|why| panic!("{} ({}): {why}", case.name(), peer.name));
        }
    }
    let missing: Vec<_> =
        cases::all().into_iter().map(|case| case.kernel).filter(|name| !kernels.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_is_not_computed_is_noticed() {
    for filter in
        ["matmul forward 8x768x3072 bf16", "gelu_tanh 820", "log_sum_exp 32x", "rope 820", "rms_norm 820"]
    {
        let found = cases::matching(filter);
        assert!(!found.is_empty(), "{filter}");
        for case in found {
            let mut kernel = (case.make)();
            assert!(verify(&mut *kernel, |_| ()).is_err(), "{}", case.name());
            if kernel.outputs().is_empty() {
                continue; // it adds to what is there, which is checked in the next test
            }
            let spoilt = |kernel: &mut dyn Kernel| {
                kernel.run(Isa::best());
                let mut outputs = kernel.outputs();
                let first = outputs.iter_mut().find(|out| !out.is_empty()).expect("an output");
                first[0] += 0.01;
            };
            assert!(verify(&mut *kernel, spoilt).is_err(), "{}", case.name());
        }
    }
}

/// What computes in place starts from numbers that are not those of the result.
#[test]
fn nothing_done_in_place_is_noticed() {
    for filter in ["adamw 20x", "adafactor 20x", "sgd 20x", "accumulate 820x"] {
        let found = cases::matching(filter);
        assert!(!found.is_empty(), "{filter}");
        for case in found {
            let mut kernel = (case.make)();
            verify(&mut *kernel, |kernel| kernel.run(Isa::best())).expect("right");
            assert!(verify(&mut *kernel, |_| ()).is_err(), "{}", case.name());
        }
    }
}

#[test]
fn filters_take_parts_of_names_and_whole_dtypes() {
    assert_eq!(cases::matching("").len(), cases::all().len());
    let found = cases::matching("forward [in 8x768x50257 f16");
    assert_eq!(
        found.iter().map(|case| case.name()).collect::<Vec<_>>(),
        ["matmul forward [in,out] 8x768x50257 f16"]
    );
    let rounded = cases::matching("matmul forward 820x768x768 bf16xbf16");
    let names: Vec<_> = rounded.iter().map(|case| case.name()).collect();
    assert_eq!(
        names,
        ["[out,in]", "[in,out]"].map(|layout| format!("matmul forward {layout} 820x768x768 bf16xbf16"))
    );
    // one word each, or no filter could name it
    assert!(cases::all().iter().all(|case| !case.dtype.contains(' ')));
}

#[test]
fn names_tell_cases_apart() {
    let mut names: Vec<_> = cases::all().iter().map(|case| case.name()).collect();
    let n = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), n);
}

#[test]
fn data_are_not_zeros() {
    for case in cases::matching("820x768") {
        let mut kernel = (case.make)();
        kernel.run(Isa::best());
        for out in kernel.outputs() {
            let zeros = out.iter().filter(|&&x| x == 0.0).count();
            assert!(zeros * 10 < out.len().max(1), "{}: {zeros} zeros", case.name());
        }
    }
}
