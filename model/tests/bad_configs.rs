//! `config.json` that is malformed, contradicts itself, or describes what we would compute wrongly.

mod common;

use common::{FIXTURES, copy, folder, refusal};
use prompt_tuning_model::Config;
use serde_json::{Value, json};

/// Opens `fixture` with some keys of its `config.json` replaced; `null` removes a key.
fn edited(fixture: &str, keys: &[(&str, Value)]) -> tempfile::TempDir {
    let copy = copy(fixture);
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for (key, value) in keys {
        match value {
            Value::Null => drop(config.as_object_mut().unwrap().remove(*key)),
            value => config[*key] = value.clone(),
        }
    }
    std::fs::write(&path, config.to_string()).unwrap();
    copy
}

fn check(fixture: &str, keys: &[(&str, Value)], expected: &[&str]) {
    let why = refusal(edited(fixture, keys).path());
    assert!(why.contains("config.json`: "), "names the file: {why}");
    for part in expected {
        assert!(why.contains(part), "`{part}` is not in: {why}");
    }
}

const GPT2: &str = "gpt2-tied-f32";
const LLAMA: &str = "llama-gqa-tied-bf16";
const BERT: &str = "bert-english";
const CLASSIFIER: &str = "gpt2-classifier";

#[test]
fn missing_keys() {
    for key in ["n_embd", "n_head", "n_layer", "vocab_size", "model_type"] {
        check(GPT2, &[(key, Value::Null)], &[&format!("`{key}` is missing")]);
    }
    check(GPT2, &[("n_positions", Value::Null)], &["`n_positions` is missing"]);
    for key in [
        "hidden_size",
        "num_attention_heads",
        "num_hidden_layers",
        "intermediate_size",
        "max_position_embeddings",
    ] {
        check(LLAMA, &[(key, Value::Null)], &[&format!("`{key}` is missing")]);
    }
}

#[test]
fn values_out_of_range() {
    for value in [json!(0), json!(-3), json!(1.5), json!("12"), json!(u64::MAX), json!([1])] {
        check(
            GPT2,
            &[("n_head", value.clone())],
            &[&format!("`n_head` is {value}, but must be a whole number")],
        );
        check(LLAMA, &[("num_hidden_layers", value.clone())], &["`num_hidden_layers` is "]);
    }
    check(
        GPT2,
        &[("layer_norm_epsilon", json!(0))],
        &["`layer_norm_epsilon` is 0, but must be a positive number"],
    );
    check(LLAMA, &[("rms_norm_eps", json!("x"))], &["`rms_norm_eps` is \"x\""]);
    check(LLAMA, &[("rope_theta", json!(-1))], &["`rope_theta` is -1"]);
    check(LLAMA, &[("eos_token_id", json!([1, "b"]))], &["`eos_token_id` is [1,\"b\"]"]);
    check(LLAMA, &[("attention_bias", json!(3))], &["`attention_bias` is 3, but must be true or false"]);
    check(GPT2, &[("n_layer", json!(5_000_000))], &["layers is 5000000"]);
}

const T5: &str = "t5-v1.0-relu-tied";

#[test]
fn an_encoder_decoder_that_contradicts_its_tensors() {
    for key in ["d_model", "d_ff", "num_layers", "num_heads", "vocab_size"] {
        check(T5, &[(key, Value::Null)], &[&format!("`{key}` is missing")]);
    }
    check(T5, &[("relative_attention_num_buckets", json!(3))], &["`relative_attention_num_buckets` 3"]);
    check(T5, &[("relative_attention_max_distance", json!(4))], &["`relative_attention_max_distance` 4"]);
    check(T5, &[("decoder_start_token_id", json!(131))], &["`decoder_start_token_id` is 131", "131 tokens"]);
    check(T5, &[("feed_forward_proj", json!("gated-x"))], &["`feed_forward_proj` `x` is not supported"]);
    check(
        T5,
        &[("architectures", json!(["T5EncoderModel"]))],
        &["`T5EncoderModel` has no language-model head"],
    );
    check(T5, &[("model_type", json!("umt5"))], &["`umt5` is an encoder-decoder"]);
    for (key, value, tensor) in [
        ("num_heads", json!(3), "SelfAttention"),
        ("d_kv", json!(9), "SelfAttention.q.weight"),
        ("d_ff", json!(51), "DenseReluDense.wi.weight"),
        ("num_layers", json!(3), "encoder.block.2"),
        ("num_decoder_layers", json!(4), "decoder.block.3"),
        ("feed_forward_proj", json!("gated-gelu"), "DenseReluDense.wi_0.weight"),
        ("relative_attention_num_buckets", json!(10), "relative_attention_bias.weight"),
    ] {
        let why = refusal(edited(T5, &[(key, value)]).path());
        assert!(why.contains(tensor), "{key}: {why}");
    }
    let own = &[("tie_word_embeddings", json!(false))];
    check(T5, own, &["`tie_word_embeddings` is false, but the weights have no `lm_head.weight`"]);
}

#[test]
fn contradictions() {
    check(GPT2, &[("n_head", json!(5))], &["`n_embd` 48 cannot be divided among `n_head` 5"]);
    check(
        LLAMA,
        &[("num_key_value_heads", json!(3))],
        &["4 heads cannot be divided among `num_key_value_heads` 3"],
    );
    check(
        LLAMA,
        &[("head_dim", Value::Null), ("num_attention_heads", json!(3))],
        &["`hidden_size` 40 cannot be divided"],
    );
    check(LLAMA, &[("head_dim", json!(7))], &["heads are 7 wide", "even width"]);
    check("gpt2-square", &[("n_head", json!(3))], &["`n_embd` 32"]);
    // the file of this one has no head of its own
    check(
        LLAMA,
        &[("tie_word_embeddings", json!(false))],
        &["`tie_word_embeddings` is false", "`lm_head.weight`"],
    );
    check(
        BERT,
        &[("tie_word_embeddings", json!(false))],
        &["`tie_word_embeddings` is false", "`cls.predictions.decoder.weight`"],
    );
    check(BERT, &[("num_attention_heads", json!(5))], &["`hidden_size` 48 cannot be divided"]);
}

#[test]
fn sizes_that_the_weights_do_not_have() {
    let why = refusal(edited(GPT2, &[("n_inner", json!(100))]).path());
    assert!(
        why.contains("`transformer.h.0.mlp.c_fc.weight` has shape [48, 192]") && why.contains("[48, 100]"),
        "{why}"
    );
    let why = refusal(edited(GPT2, &[("n_layer", json!(3))]).path());
    assert!(why.contains("tensor `transformer.h.2."), "{why}");
    for (key, value, tensor) in [
        ("intermediate_size", 90, "`bert.encoder.layer.0.intermediate.dense.weight` has shape [96, 48]"),
        ("num_hidden_layers", 3, "`bert.encoder.layer.2."),
        ("max_position_embeddings", 80, "`bert.embeddings.position_embeddings.weight` has shape [64, 48]"),
        ("type_vocab_size", 1, "`bert.embeddings.token_type_embeddings.weight` has shape [2, 48]"),
        ("hidden_size", 96, "has shape"),
        ("vocab_size", 7, "has shape"),
    ] {
        let why = refusal(edited(BERT, &[(key, json!(value))]).path());
        assert!(why.contains(tensor), "{key}: {why}");
    }
    let why = refusal(edited(LLAMA, &[("vocab_size", json!(132))]).path());
    assert!(why.contains("`model.embed_tokens.weight` has shape [131, 40]"), "{why}");
}

#[test]
fn other_architectures() {
    let model = |model_type: &str, class: &str| {
        [("model_type", json!(model_type)), ("architectures", json!([class]))]
    };
    let supported = "supported are gpt2, llama (Llama 2 and 3, SmolLM2), qwen2, mistral, bert";
    check(GPT2, &model("rwkv", "RwkvForCausalLM"), &["model_type `rwkv` is not known", supported]);
    check(GPT2, &model("roberta", "RobertaForMaskedLM"), &["masked language model", "yet", supported]);
    check(GPT2, &model("bert", "BertForMaskedLM"), &["`hidden_size` is missing"]);
    check(
        GPT2,
        &model("mpnet", "MPNetModel"),
        &["encoder that gives embeddings", "no language-model head", supported],
    );
    check(BERT, &model("bert", "BertModel"), &["`BertModel` has no language-model head", "…ForMaskedLM"]);
    check(BERT, &model("bert", "BertForTokenClassification"), &["classifier", "…ForMaskedLM"]);
    check(GPT2, &model("umt5", "UMT5ForConditionalGeneration"), &["encoder-decoder", "yet"]);
    check(
        LLAMA,
        &model("mistral", "MistralModel"),
        &["`MistralModel` has no language-model head", "embedding model"],
    );
    check(GPT2, &model("gpt2", "GPT2ForTokenClassification"), &["classifier"]);
    check(GPT2, &model("t5", "T5ForSequenceClassification"), &["classifier"]);
}

#[test]
fn classifiers_of_other_kinds() {
    let check = |key: &str, value: Value, expected: &str| check(CLASSIFIER, &[(key, value)], &[expected]);
    check("problem_type", json!("regression"), "`problem_type` `regression` is not supported");
    check("id2label", json!({"0": "score"}), "a classifier of 1 labels is not supported");
    check("id2label", json!({"0": "a", "2": "b"}), "`id2label` has 2 labels, but none with the number 1");
    check("id2label", json!(["a", "b"]), "must be an object");
}

/// What transformers leaves out of `config.json` are its usual names.
#[test]
fn labels_without_names() {
    let config = |keys: &[(&str, Value)]| Config::open(edited(CLASSIFIER, keys).path()).unwrap();
    let labels = config(&[("id2label", Value::Null)]).labels.unwrap();
    assert_eq!(labels, ["LABEL_0", "LABEL_1"]);
    assert_eq!(config(&[]).labels.unwrap(), ["bad", "fair", "good"]);
}

#[test]
fn features_we_would_compute_wrongly() {
    check(
        GPT2,
        &[("scale_attn_by_inverse_layer_idx", json!(true))],
        &["`scale_attn_by_inverse_layer_idx`: true"],
    );
    check(GPT2, &[("scale_attn_weights", json!(false))], &["`scale_attn_weights`: false"]);
    check(GPT2, &[("add_cross_attention", json!(true))], &["`add_cross_attention`: true"]);
    check(GPT2, &[("activation_function", json!("mish"))], &["`activation_function` `mish`", "gelu_new"]);
    check(LLAMA, &[("use_sliding_window", json!(true))], &["`use_sliding_window`: true"]);
    check(LLAMA, &[("layer_types", json!(["full_attention", "sliding_attention"]))], &["sliding_attention"]);
    check(LLAMA, &[("rope_scaling", json!({"type": "yarn", "factor": 2.0}))], &["type `yarn`", "llama3"]);
    check(LLAMA, &[("rope_parameters", json!({"rope_type": "dynamic"}))], &["type `dynamic`"]);
    let by_layer = json!({"full_attention": {"rope_type": "default"}});
    check(LLAMA, &[("rope_parameters", by_layer)], &["differ from layer to layer"]);
    check(LLAMA, &[("partial_rotary_factor", json!(0.5))], &["`partial_rotary_factor` 0.5"]);
    check(LLAMA, &[("rope_scaling", json!({"type": "linear"}))], &["`factor` is missing"]);
    check(LLAMA, &[("rope_scaling", json!(7))], &["`rope_scaling` is 7, but must be an object"]);
    let reversed = json!({"rope_type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 1});
    check(LLAMA, &[("rope_scaling", reversed)], &["`low_freq_factor` 4 must be less"]);
    check(BERT, &[("is_decoder", json!(true))], &["`is_decoder`: true"]);
    check(BERT, &[("position_embedding_type", json!("relative_key"))], &["`relative_key`", "only absolute"]);
    check(BERT, &[("hidden_act", json!("tanh"))], &["`hidden_act` `tanh`"]);
    check(LLAMA, &[("quantization_config", json!({"bits": 4}))], &["quantised"]);
}

#[test]
fn files_that_are_no_json_object() {
    for (text, expected) in
        [("", "not valid JSON"), ("{\"model_type\": ", "not valid JSON"), ("[]", "a JSON object is needed")]
    {
        let copy = copy(GPT2);
        std::fs::write(copy.path().join("config.json"), text).unwrap();
        assert!(refusal(copy.path()).contains(expected));
    }
    let copy = copy(GPT2);
    std::fs::remove_file(copy.path().join("config.json")).unwrap();
    assert!(refusal(copy.path()).contains("cannot read"));
    assert!(refusal(&folder("not-there")).contains("not-there"));
}

#[test]
fn what_is_read() {
    let open = |name: &str| Config::open(&folder(name)).unwrap();
    // a GGUF file holds its configuration itself
    for name in FIXTURES.into_iter().filter(|name| folder(name).join("config.json").exists()) {
        assert_eq!(open(name).name_or_path, name);
    }
    let llama = open("llama-untied-sharded-f32");
    assert_eq!((llama.d_model, llama.n_heads, llama.head_dim, llama.n_kv_heads), (40, 4, 16, 2));
    assert_eq!(
        (llama.tie_word_embeddings, &*llama.eos_token_ids, llama.bos_token_id),
        (Some(false), &[1][..], Some(0))
    );
    assert_eq!(llama.rope.unwrap().theta, 500.0);
    let qwen = open("qwen2-bias-tied");
    assert!(qwen.qkv_bias && !qwen.attention_out_bias && !qwen.mlp_bias);
    assert_eq!(open(GPT2).d_ff, 4 * 48);

    // generation_config.json adds ends of text
    let copy = copy(LLAMA);
    std::fs::write(copy.path().join("generation_config.json"), r#"{"eos_token_id": [7, 1, 9]}"#).unwrap();
    assert_eq!(Config::open(copy.path()).unwrap().eos_token_ids, [1, 7, 9]);
    // a sliding window bounds the context of Mistral
    let copy = edited(
        LLAMA,
        &[("model_type", json!("mistral")), ("sliding_window", json!(20)), ("architectures", Value::Null)],
    );
    assert_eq!(Config::open(copy.path()).unwrap().n_positions, 20);
}
