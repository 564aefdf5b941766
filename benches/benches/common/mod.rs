//! Cases of the registry as criterion benches.

use criterion::{BenchmarkId, Criterion, Throughput};
use kernels::Isa;
use prompt_tuning_benches::case::Kind;
use prompt_tuning_benches::{cases, is_test, peers};

/// Every case that `filter` names; as a test only those that `in_tests` names. Verified before they are timed.
pub(crate) fn bench(c: &mut Criterion, filter: &str, in_tests: &str) {
    for case in cases::matching(if is_test() { in_tests } else { filter }) {
        let mut group = c.benchmark_group(case.name());
        group.sample_size(10).throughput(match case.kind {
            Kind::Matmul | Kind::FewRows | Kind::Attention => Throughput::Elements(case.work.flops as u64),
            _ => Throughput::Bytes(case.work.bytes() as u64),
        });
        let mut kernel = (case.make)();
        let tiers = if case.tiers { Isa::available() } else { vec![Isa::best()] };
        for isa in tiers {
            let checked = prompt_tuning_benches::case::verify(&mut *kernel, |kernel| kernel.run(isa));
            checked.unwrap_or_else(|why| panic!("{} ({}): {why}", case.name(), isa.name()));
            let name = if case.tiers { isa.name() } else { "any" };
            group.bench_function(BenchmarkId::from_parameter(name), |b| b.iter(|| kernel.run(isa)));
        }
        for peer in peers::all() {
            if let Some((product, out)) = kernel.product() {
                let id = BenchmarkId::from_parameter(peer.name);
                group.bench_function(id, |b| b.iter(|| (peer.run)(product, out)));
            }
        }
    }
}
