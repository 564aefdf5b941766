//! Rotary positions: from the keys of `config.json` to the frequencies of the kernel's table.

use kernels::rope::Pairs;

use crate::Result;
use crate::read::Keys;

/// Rotary position embedding of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of frequencies.
    pub theta: f32,
    /// How the frequencies are changed for longer texts.
    pub scaling: Scaling,
    /// Which lanes of a head are rotated together.
    pub pairs: Pairs,
}

/// How the frequencies of a longer context are derived.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// They are not changed.
    None,
    /// All of them divided by a factor (Chen et al. 2023, position interpolation).
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama 3: long wavelengths divided by the factor, short ones kept, a ramp between.
    Llama3 {
        /// The divisor.
        factor: f32,
        /// Wavelengths above `original / low_freq_factor` are divided.
        low_freq_factor: f32,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// Context window before it was made longer.
        original: f32,
    },
}

impl Rope {
    /// Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before).
    pub(crate) fn from_keys(keys: &Keys) -> Result<Rope> {
        let parameters = keys.object("rope_parameters")?;
        if parameters.as_ref().is_some_and(|p| p.object("full_attention").ok().flatten().is_some()) {
            return Err(keys
                .unsupported("`rope_parameters` differ from layer to layer, which is not supported".into()));
        }
        let scaling = match &parameters {
            Some(parameters) => Some(parameters.clone()),
            None => keys.object("rope_scaling")?,
        };
        let nested = parameters.map(|p| p.positive("rope_theta")).transpose()?.flatten();
        let theta = match nested {
            Some(theta) => theta,
            None => keys.positive("rope_theta")?.unwrap_or(10_000.0),
        };
        for keys in [Some(keys), scaling.as_ref()].into_iter().flatten() {
            if let Some(part) = keys.positive("partial_rotary_factor")?.filter(|&part| part != 1.0) {
                return Err(
                    keys.unsupported(format!("`partial_rotary_factor` {part} is not supported; only 1 is"))
                );
            }
        }
        let scaling = scaling.map_or(Ok(Scaling::None), |s| Scaling::from_keys(&s, keys))?;
        Ok(Rope { theta, scaling, pairs: Pairs::Halves })
    }

    /// One frequency per pair of lanes, `head_dim / 2`, rounded to f32 at the same places as transformers.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let inverse = |i: usize| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            1.0 / f64::from(self.theta).powf(f64::from(exponent)) as f32
        };
        (0..head_dim / 2).map(inverse).map(|f| self.scaling.apply(f)).collect()
    }
}

impl Scaling {
    fn from_keys(scaling: &Keys, config: &Keys) -> Result<Scaling> {
        let kind = match scaling.string("rope_type")? {
            Some(kind) => Some(kind),
            None => scaling.string("type")?,
        };
        let needed = |key: &str| scaling.positive(key)?.ok_or_else(|| scaling.missing(key));
        match kind.unwrap_or("default") {
            "default" => Ok(Scaling::None),
            "linear" => Ok(Scaling::Linear { factor: needed("factor")? }),
            "llama3" => {
                let (low, high) = (needed("low_freq_factor")?, needed("high_freq_factor")?);
                if low >= high {
                    let why = format!("`low_freq_factor` {low} must be less than `high_freq_factor` {high}");
                    return Err(scaling.config(why));
                }
                let original = match scaling.positive("original_max_position_embeddings")? {
                    Some(original) => original,
                    None => config.needed_size("max_position_embeddings")? as f32,
                };
                let factor = needed("factor")?;
                Ok(Scaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original })
            }
            other => Err(scaling.unsupported(format!(
                "rotary positions of type `{other}` are not supported; default, linear and llama3 are"
            ))),
        }
    }

    fn apply(&self, frequency: f32) -> f32 {
        match *self {
            Scaling::None => frequency,
            Scaling::Linear { factor } => frequency / factor,
            Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                let turns = original * frequency / std::f32::consts::TAU;
                let ramp = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                match ramp {
                    1.0 => frequency,
                    0.0 => frequency / factor,
                    _ => (1.0 - ramp) * frequency / factor + ramp * frequency,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::testing::{Tolerance, close};

    #[test]
    fn the_frequencies_of_llama_3_1() {
        let scaling =
            Scaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original: 8192.0 };
        let rope = Rope { theta: 500_000.0, scaling, pairs: Pairs::Halves };
        let plain = Rope { scaling: Scaling::None, ..rope }.frequencies(128);
        let scaled = rope.frequencies(128);
        // wavelengths below 2048 are kept, above 8192 divided by 8
        let kept = plain.iter().filter(|&&f| std::f32::consts::TAU / f < 2048.0).count();
        let divided = plain.iter().filter(|&&f| std::f32::consts::TAU / f > 8192.0).count();
        assert!(kept > 0 && divided > 0 && kept + divided < 64);
        assert_eq!(scaled[..kept], plain[..kept]);
        let eighth: Vec<f32> = plain[64 - divided..].iter().map(|f| f / 8.0).collect();
        assert_eq!(scaled[64 - divided..], eighth);
        for i in kept..64 - divided {
            assert!(plain[i] / 8.0 < scaled[i] && scaled[i] < plain[i]);
        }
        // the first frequency of the ramp, by hand
        let turns = 8192.0 * f64::from(plain[kept]) / std::f64::consts::TAU;
        let ramp = (turns - 1.0) / 3.0;
        let expected = f64::from(plain[kept]) * ((1.0 - ramp) / 8.0 + ramp);
        close(&scaled[kept..=kept], &[expected], Tolerance::both(1e-6)).unwrap();
    }
}
