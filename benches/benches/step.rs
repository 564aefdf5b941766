//! One whole step of prompt tuning on a random GPT-2: packing, forward, backward, optimizer.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use model::LanguageModel;
use prompt_tuning_benches::data::Dtype;
use prompt_tuning_benches::is_test;
use prompt_tuning_benches::step::shape::{self, Family, Shape};
use prompt_tuning_benches::step::{self, Plan};

/// A third of GPT-2 small in every direction.
const MEDIUM: Shape = Shape {
    family: Family::Gpt2,
    d_model: 256,
    n_layers: 4,
    n_heads: 4,
    n_kv_heads: 4,
    d_ff: 1024,
    vocab_size: 16_000,
    n_positions: 256,
    dtype: Dtype::F32,
};
const TINY: Shape = Shape { d_model: 32, n_layers: 2, d_ff: 64, vocab_size: 500, ..MEDIUM };

fn training_step(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let shape = if is_test() { TINY } else { MEDIUM };
    shape::write(&shape, folder.path(), 64, 0).expect("a checkpoint");
    let model = LanguageModel::open(folder.path()).expect("a model");
    let mut group = c.benchmark_group("step");
    group.sample_size(10);
    for prompt in [20, 100] {
        let plan = Plan { prompt, batch: 32, steps: usize::MAX - 1 };
        let rows = step::rows(&folder.path().join("rows.jsonl"), model.config(), prompt).expect("rows");
        let mut trainer = step::trainer(&model, &rows, plan);
        group.throughput(Throughput::Elements(plan.batch as u64));
        group.bench_function(BenchmarkId::new("prompt", prompt), |b| {
            b.iter(|| trainer.step().expect("a finite loss"))
        });
    }
}

criterion_group!(benches, training_step);
criterion_main!(benches);
