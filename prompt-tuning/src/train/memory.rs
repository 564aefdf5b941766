//! How much memory the process took, as the operating system counts it.

/// Peak resident memory in bytes (`VmHWM`; the mapped checkpoint's pages count as far as they were touched), or
/// `None` where there is no `/proc`.
pub fn peak_rss_bytes() -> Option<u64> {
    status("VmHWM:")
}

/// Anonymous resident memory in bytes (`RssAnon`): everything but mapped files.
pub fn anonymous_bytes() -> Option<u64> {
    status("RssAnon:")
}

fn status(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}
