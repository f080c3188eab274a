//! Site and model from disk, refused before loading when they do not fit the machine.

use anyhow::{Context, Result, bail};
use ganglion_decide::{Decider, LoadedModel, MemoryPlan, Options, memory_plan};
use ganglion_gguf::Gguf;
use ganglion_llm::{Loaded, PackedFolder};
use ganglion_site::{Micros, Site};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A site file, checked.
pub fn site(path: &Path) -> Result<Arc<Site>> {
    Ok(Arc::new(Site::load(path)?))
}

/// The site with another variant of its model; 0 is the first choice.
pub fn variant(site: &Arc<Site>, level: usize) -> Result<Arc<Site>> {
    let path = site.model.variant_path(level);
    let Some(path) = path else {
        bail!("variant {level}: the site has {}", site.model.variants.len() + 1);
    };
    let mut changed = Site::clone(site);
    changed.model.path = path.to_owned();
    Ok(Arc::new(changed))
}

/// The site's model file and what it will take; refused when that is more than the machine has to give.
pub fn model_file(site: &Site) -> Result<(Gguf, MemoryPlan)> {
    let path = &site.model.path;
    let gguf = Gguf::open(path).with_context(|| format!("model.path in {}", site.file.display()))?;
    let plan = memory_plan(site, &gguf).with_context(|| format!("model {}", path.display()))?;
    let available = available_bytes();
    // Mapped weights need not all be in memory at once.
    let least = if packed_folder().is_some() {
        plan.kv_bytes + plan.scratch_bytes + plan.tables_bytes
    } else {
        plan.total_bytes()
    };
    if let Some(available) = available
        && (least..plan.total_bytes()).contains(&available)
    {
        eprintln!(
            "warning: {} of memory for a plan of {}: the weights are read from disk for every token, which is slow",
            size(available),
            size(plan.total_bytes())
        );
    } else if let Some(available) = available
        && available < least
    {
        bail!(
            "model and site need {} of memory, {} are available: take a smaller model or lower model.context_tokens\n{}",
            size(plan.total_bytes()),
            size(available),
            plan_table(&plan)
        );
    }
    Ok((gguf, plan))
}

/// Everything ready for events.
pub fn decider(site: &Arc<Site>, gguf: &Gguf, options: Options) -> Result<Decider> {
    let (model, loaded) = LoadedModel::with_folder(gguf, site.model.threads, packed_folder().as_ref())
        .with_context(|| format!("model {}", site.model.path.display()))?;
    announce(&loaded);
    Ok(Decider::new(Arc::clone(site), &model, options)?)
}

/// Where packed weights of larger models are kept; `None` for a user without a home.
pub fn packed_folder() -> Option<PackedFolder> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = cache.filter(|path| path.is_absolute()).or_else(|| Some(home()?.join(".cache")))?;
    Some(PackedFolder::new(cache.join("ganglion")))
}

/// Says what a user should know of how the weights were loaded.
pub fn announce(loaded: &Loaded) {
    match loaded {
        Loaded::Written => eprintln!("packed weights are kept for the next start"),
        Loaded::Packed(Some(error)) => eprintln!("warning: {error}; they are packed anew at every start"),
        Loaded::Packed(None) | Loaded::Mapped => {}
    }
}

/// Lines of the memory plan.
pub fn plan_table(plan: &MemoryPlan) -> String {
    format!(
        "  weights  {:>12}\n  KV cache {:>12}  ({} tokens)\n  scratch  {:>12}\n  tables   {:>12}\n  total    {:>12}\n",
        size(plan.weights_bytes),
        size(plan.kv_bytes),
        plan.context_tokens,
        size(plan.scratch_bytes),
        size(plan.tables_bytes),
        size(plan.total_bytes())
    )
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        10_485_760..10_737_418_240 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// Memory that can be had without swapping, as the kernel and the process's control group see it.
pub fn available_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = machine.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)?;
    let read = |file: &str| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let group = read("/sys/fs/cgroup/memory.max")
        .map(|max| max.saturating_sub(read("/sys/fs/cgroup/memory.current").unwrap_or(0)));
    Some(group.map_or(machine, |group| group.min(machine)))
}

/// The monotonic clock as a decider wants it.
pub fn clock() -> impl FnMut() -> Micros {
    ganglion_guard::monotonic_us
}
