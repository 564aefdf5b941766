//! What a measurement was made on.

use serde::{Deserialize, Serialize};

/// The machine, as far as the operating system tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model name of the processor.
    pub cpu: String,
    /// Logical cores this process may use.
    pub cores: usize,
    /// Threads that compute.
    pub threads: usize,
    /// Instruction sets that matter here.
    pub instructions: Vec<String>,
    /// Size of each cache, as `L2 512K`; how many cores share one follows where it is more than one.
    pub caches: Vec<String>,
    /// Gigabytes of memory.
    pub memory_gb: Option<f64>,
}

impl Machine {
    /// The one this runs on.
    pub fn here() -> Machine {
        Machine {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            threads: rayon::current_num_threads(),
            instructions: instructions(),
            caches: (0..8).filter_map(cache).collect(),
            memory_gb: memory_gb(),
        }
    }

    /// In one line.
    pub fn line(&self) -> String {
        let memory = self.memory_gb.map_or(String::new(), |gb| format!("; {gb:.0} GB of memory"));
        let caches = self.caches.join(", ");
        let instructions = self.instructions.join(", ");
        format!(
            "{}, {} cores, {} threads; {instructions}; {caches}{memory}",
            self.cpu, self.cores, self.threads
        )
    }
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Vec<String> {
    let all = [
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("AVX-512F", is_x86_feature_detected!("avx512f")),
        ("AVX-512-BF16", is_x86_feature_detected!("avx512bf16")),
        ("AVX-512-VNNI", is_x86_feature_detected!("avx512vnni")),
    ];
    all.iter().filter(|(_, there)| *there).map(|(name, _)| name.to_string()).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn instructions() -> Vec<String> {
    vec![std::env::consts::ARCH.into()]
}

/// What follows `name :` in a file of lines.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

fn memory_gb() -> Option<f64> {
    let kib: f64 = field("/proc/meminfo", "MemTotal")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e9)
}

/// Cache number `i` of the first core, unless it holds instructions only.
fn cache(i: usize) -> Option<String> {
    let read = |name: &str| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{i}/{name}");
        std::fs::read_to_string(path).ok().map(|text| text.trim().to_string())
    };
    let (level, size) = (read("level")?, read("size")?);
    if read("type")? == "Instruction" {
        return None;
    }
    let shared = read("shared_cpu_list").is_some_and(|list| list.contains(['-', ',']));
    Some(format!("L{level} {size}{}", if shared { " shared" } else { "" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_a_processor() {
        let here = Machine::here();
        assert!(!here.cpu.is_empty() && here.cores > 0 && here.threads > 0);
        assert!(here.line().contains(&here.cpu));
    }
}
