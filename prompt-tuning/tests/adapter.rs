//! Adapters made by PEFT are read, and written back byte for byte.

use std::fs;
use std::path::{Path, PathBuf};

use kernels::testing::{Tolerance, close};
use model::Family;
use prompt_tuning::adapter::{Adapter, AdapterConfig, BaseModel, ModelIdentity, PeftInit, Provenance};
use prompt_tuning::prompt_encoder::Method;
use prompt_tuning::soft_prompt::SoftPrompt;

const FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures").join(name)
}

fn base(name: &str, d_model: usize) -> BaseModel {
    BaseModel {
        name: name.into(),
        n_heads: 12,
        n_kv_heads: 12,
        kv_width: d_model,
        n_layers: 12,
        n_prefix_layers: 12,
        d_model,
        family: Family::Causal,
    }
}

fn adapter(n_tokens: usize, d_model: usize) -> Adapter {
    let base = base("gpt2", d_model);
    Adapter {
        config: AdapterConfig::new(n_tokens, &base, Method::Soft, PeftInit::Random),
        prompt: SoftPrompt::new(n_tokens, d_model, (0..n_tokens * d_model).map(|i| i as f32 / 8.0).collect()),
        unread: Vec::new(),
        provenance: None,
    }
}

fn written(adapter: &Adapter) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    adapter.write(folder.path()).unwrap();
    folder
}

fn error(folder: &Path) -> String {
    let error = Adapter::read(folder).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(!text.contains('\n') && text.contains(folder.to_str().unwrap()), "{text}");
    text
}

#[test]
fn adapters_of_peft_are_read_and_written_byte_for_byte() {
    for (name, d_model) in [("gpt2-tied-f32", 48), ("llama-gqa-tied-bf16", 40)] {
        let folder = fixture(name).join("adapter");
        let adapter = Adapter::read(&folder).unwrap();
        assert_eq!(
            (adapter.prompt.n_tokens, adapter.prompt.d_model, &adapter.provenance),
            (5, d_model, &None)
        );
        let expected = tensor::Checkpoint::open_file(&fixture(name).join("expected.safetensors")).unwrap();
        let expected = expected.tensor("adamw.prompt", &[5, d_model]).unwrap();
        close(&adapter.prompt.values, expected.f32s(), Tolerance::both(0.0)).unwrap();

        let again = written(&adapter);
        for file in FILES {
            assert_eq!(
                fs::read(again.path().join(file)).unwrap(),
                fs::read(folder.join(file)).unwrap(),
                "{name}: {file}"
            );
        }
        // what we would have written ourselves
        let base = BaseModel { n_heads: 4, n_layers: 2, ..base(name, d_model) };
        assert_eq!(adapter.config, AdapterConfig::new(5, &base, Method::Soft, PeftInit::Random));
    }
}

/// 2n rows, of which the first half is used and the second half comes back as it was.
#[test]
fn an_adapter_of_peft_for_an_encoder_decoder() {
    let name = "t5-v1.1-gated-bf16";
    let folder = fixture(name).join("adapter");
    let adapter = Adapter::read(&folder).unwrap();
    assert_eq!((adapter.prompt.n_tokens, adapter.prompt.d_model, adapter.unread.len()), (5, 32, 5 * 32));
    let expected = tensor::Checkpoint::open_file(&fixture(name).join("expected.safetensors")).unwrap();
    let expected = expected.tensor("adamw.prompt", &[5, 32]).unwrap();
    close(&adapter.prompt.values, expected.f32s(), Tolerance::both(0.0)).unwrap();
    let again = written(&adapter);
    for file in FILES {
        let [ours, theirs] = [again.path(), &folder].map(|folder| fs::read(folder.join(file)).unwrap());
        assert_eq!(ours, theirs, "{file}");
    }
    let base = BaseModel { n_heads: 3, n_layers: 2, family: Family::Seq2Seq, ..base(name, 32) };
    assert_eq!(adapter.config, AdapterConfig::new(5, &base, Method::Soft, PeftInit::Random));

    // n rows with num_transformer_submodules = 1
    let mut short = Adapter { unread: Vec::new(), ..adapter.clone() };
    short.config.num_transformer_submodules = Some(1);
    assert_eq!(Adapter::read(written(&short).path()).unwrap(), short);
    short.config.num_transformer_submodules = Some(2);
    assert!(
        error(written(&short).path())
            .contains("holds [5, 32] numbers, but adapter_config.json says [10, 32]")
    );

    let check = |family, force| {
        let base = BaseModel { name: "b".into(), family, ..base.clone() };
        let model = ModelIdentity { base: &base, fingerprint: "f" };
        adapter.check(&folder, model, force).map_err(|e| e.to_string())
    };
    assert_eq!(check(Family::Seq2Seq, false), Ok(()));
    let why = check(Family::Causal, false).unwrap_err();
    assert!(why.contains("for a SEQ_2_SEQ_LM model, but `b` is no encoder-decoder"), "{why}");
    assert_eq!(check(Family::Causal, true), Ok(()));
}

#[test]
fn sizes_are_those_that_peft_recorded() {
    for (n_tokens, d_model, size) in
        [(200, 3072, 2_457_728), (20, 3072, 245_880), (20, 768, 61_560), (5, 768, 15_480)]
    {
        let folder = written(&adapter(n_tokens, d_model));
        assert_eq!(fs::metadata(folder.path().join(FILES[1])).unwrap().len(), size);
    }
}

#[test]
fn a_prompt_is_bound_to_its_model() {
    let mut made = adapter(2, 4);
    let provenance =
        Provenance { model: "a".into(), model_fingerprint: "f1".into(), seed: 7, ..Provenance::default() };
    made.provenance = Some(provenance);
    let folder = written(&made);
    let read = Adapter::read(folder.path()).unwrap();
    assert_eq!(read, made);
    let check = |fingerprint, d_model, force| {
        let model = ModelIdentity { base: &base("b", d_model), fingerprint };
        read.check(folder.path(), model, force).map_err(|e| e.to_string())
    };
    assert_eq!(check("f1", 4, false), Ok(()));
    assert!(check("f2", 4, false).unwrap_err().contains("made for model `a` (f1), not for `b` (f2)"));
    assert_eq!(check("f2", 4, true), Ok(()));
    assert!(check("f1", 5, true).unwrap_err().contains("another model"));
    // written again without: the old file does not stay behind
    Adapter { provenance: None, ..made }.write(folder.path()).unwrap();
    assert_eq!(Adapter::read(folder.path()).unwrap().provenance, None);
}

#[test]
fn sixteen_bit_prompts_are_widened() {
    for (dtype, bits) in
        [("F16", [0x3c00u16, 0xc100, 0x0001, 0x7bff]), ("BF16", [0x3f80, 0xc020, 0x0001, 0x7f7f])]
    {
        let folder = written(&adapter(2, 2));
        let header = format!(
            "{{\"prompt_embeddings\":{{\"dtype\":\"{dtype}\",\"shape\":[2,2],\"data_offsets\":[0,8]}}}} "
        );
        let mut bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        bytes.extend(bits.iter().flat_map(|b| b.to_le_bytes()));
        fs::write(folder.path().join(FILES[1]), bytes).unwrap();
        let prompt = Adapter::read(folder.path()).unwrap().prompt;
        let expected = match dtype {
            "F16" => [1.0, -2.5, 2f32.powi(-24), 65504.0],
            _ => [1.0, -2.5, f32::from_bits(0x0001_0000), f32::from_bits(0x7f7f_0000)],
        };
        assert_eq!(prompt.values, expected);
    }
}

#[test]
fn folders_that_are_no_adapters() {
    let folder = tempfile::tempdir().unwrap();
    assert!(error(folder.path()).contains("adapter_config.json` is not there"));

    let good = adapter(2, 4);
    let folder = written(&good);
    let weights = folder.path().join(FILES[1]);
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    assert!(error(folder.path()).contains("not a valid safetensors file"));

    fs::rename(&weights, folder.path().join("adapter_model.bin")).unwrap();
    assert!(error(folder.path()).contains("safe_serialization=True"));
    fs::remove_file(folder.path().join("adapter_model.bin")).unwrap();
    assert!(error(folder.path()).contains("adapter_model.safetensors"));

    let shapes = written(&Adapter { prompt: adapter(3, 4).prompt, ..good.clone() });
    assert!(error(shapes.path()).contains("holds [3, 4] numbers, but adapter_config.json says [2, 4]"));

    let mut diverged = good.clone();
    diverged.prompt.values[5] = f32::INFINITY;
    assert!(error(written(&diverged).path()).contains("virtual token 1 holds inf"));

    let folder = written(&good);
    fs::write(folder.path().join("prompt_tuning.json"), "{\"seed\": \"x\"}").unwrap();
    assert!(error(folder.path()).contains("prompt_tuning.json"));
}

#[test]
fn a_folder_that_cannot_be_written_is_one_error_and_loses_nothing() {
    let folder = written(&adapter(2, 4));
    let before = fs::read(folder.path().join(FILES[1])).unwrap();
    // in the way of the file written beside; this stops root as well
    fs::create_dir(folder.path().join(".adapter_model.safetensors.tmp")).unwrap();
    let error = adapter(5, 4).write(folder.path()).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("adapter_model.safetensors"), "{error}");
    assert_eq!(fs::read(folder.path().join(FILES[1])).unwrap(), before);
    assert!(Adapter::read(folder.path()).is_ok());
}
