//! Manifests and runs: every manifest there is, every block of every run that one of them names.

use super::super::still::forget_cache;
use super::super::{Damage, Fault, told};
use super::Report;
use crate::at_rest::home::Home;
use crate::shard::checkpoint::Restoring;
use crate::shard::manifest::{self, Manifest, ManifestError, RunName, runs_dir};
use crate::shard::registrations;
use myelin_datom::Kind;
use myelin_index::{FactRun, IndexError, Run, RunMeta};
use myelin_wal::Lsn;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The checkpoints of one core.
#[derive(Default)]
pub(super) struct Checkpoints {
    /// The newest whole manifest: what a start would begin from.
    pub(super) newest: Option<Manifest>,
    /// Its file, seen from the data directory.
    pub(super) path: String,
    /// Whether the shards can be brought back: there never was a manifest, or all runs of the newest are sound.
    pub(super) whole: bool,
    /// What the newest manifest brings back.
    pub(super) restoring: BTreeMap<u16, Restoring>,
    /// Every run that is named.
    pub(super) named: BTreeSet<String>,
}

impl Checkpoints {
    /// Where the log goes on behind the newest; before everything when there is none.
    pub(super) fn lsn(&self) -> Lsn {
        self.newest.as_ref().map_or(Lsn::ZERO, Manifest::lsn)
    }

    /// Checks all of them, oldest first.
    pub(super) fn check(home: &Home, core: u16, report: &mut Report) -> Result<Self, Fault> {
        let dir = home.core_dir(core);
        let mut runs = Runs { home, dir: &dir, sound: BTreeMap::new(), facts: BTreeMap::new() };
        let mut this = Self { whole: true, ..Self::default() };
        let mut reflexes = BTreeSet::new();
        for (number, path) in manifest::numbered(&dir).map_err(Fault::io(&dir))? {
            let file = told::in_core(core, &path.file_name().unwrap_or_default().to_string_lossy());
            if let Ok(handle) = File::open(&path) {
                forget_cache(&handle);
            }
            let decoded = Manifest::decode(number, &fs::read(&path).map_err(Fault::io(&path))?);
            report.checked.manifests += 1;
            let manifest = match decoded {
                Ok(manifest) if manifest.core == u32::from(core) => manifest,
                Ok(manifest) => {
                    let what = format!("it is core {}'s", manifest.core);
                    report.damage.push(Damage { file, offset: 12, what });
                    continue;
                }
                Err((what, at)) => {
                    report.damage.push(Damage { file, offset: at as u64, what: what.to_owned() });
                    continue;
                }
            };
            this.whole = true;
            this.restoring.clear();
            reflexes.extend(manifest.shards.iter().filter_map(|files| Some(files.reflexes.as_ref()?.name.clone())));
            for files in &manifest.shards {
                let ticks = runs.all(&files.ticks, Kind::Tick, report)?;
                let quotes = runs.all(&files.quotes, Kind::Quote, report)?;
                let facts = runs.facts(&files.facts, report)?;
                let registrations = runs.registrations(files.reflexes.as_ref(), report)?;
                match (ticks, quotes, facts, registrations) {
                    (Some(ticks), Some(quotes), Some(facts), Some(registrations)) => {
                        let state = files.state.clone();
                        let restoring = Restoring { state, registrations, ticks, quotes, facts };
                        this.restoring.insert(files.shard, restoring);
                    }
                    _ => this.whole = false,
                }
            }
            (this.newest, this.path) = (Some(manifest), file);
        }
        if this.newest.is_none() && report.damage.iter().any(|damage| damage.file.contains("/manifest-")) {
            this.whole = false;
        }
        this.named = runs.sound.into_keys().chain(runs.facts.into_keys()).chain(reflexes).collect();
        Ok(this)
    }
}

/// The runs of a core, each opened and verified once.
struct Runs<'a> {
    home: &'a Home,
    dir: &'a Path,
    /// By name; none when it is damaged.
    sound: BTreeMap<String, Option<Arc<Run>>>,
    /// Runs of facts, likewise.
    facts: BTreeMap<String, Option<Arc<FactRun>>>,
}

impl Runs<'_> {
    /// The runs of these names; none when one of them cannot be used.
    fn all(&mut self, names: &[RunName], kind: Kind, report: &mut Report) -> Result<Option<Vec<Arc<Run>>>, Fault> {
        let mut all = Some(Vec::new());
        for name in names {
            match self.one(name, kind, report)? {
                Some(run) => all = all.map(|all| [all, vec![run]].concat()),
                None => all = None,
            }
        }
        Ok(all)
    }

    /// A run that was opened: counted, or its damage reported.
    fn noted<T>(
        &self,
        path: &Path,
        opened: Result<T, IndexError>,
        meta: impl Fn(&T) -> &RunMeta,
        report: &mut Report,
    ) -> Result<Option<Arc<T>>, Fault> {
        match opened {
            Ok(run) => {
                report.checked.runs += 1;
                report.checked.blocks += u64::from(meta(&run).blocks);
                report.checked.run_bytes += meta(&run).bytes;
                Ok(Some(Arc::new(run)))
            }
            Err(error) => {
                report.damage.push(told::of_run(&self.home.dir, path, error)?);
                Ok(None)
            }
        }
    }

    /// The runs of facts of these names; none when one of them cannot be used.
    fn facts(&mut self, names: &[RunName], report: &mut Report) -> Result<Option<Vec<Arc<FactRun>>>, Fault> {
        let mut all = Some(Vec::new());
        for name in names {
            let path = runs_dir(self.dir).join(&name.name);
            let run = match self.facts.get(&name.name) {
                Some(known) => known.clone(),
                None => {
                    let run = self.noted(&path, open_facts(&path), FactRun::meta, report)?;
                    self.facts.insert(name.name.clone(), run.clone());
                    run
                }
            };
            let run = run.filter(|run| {
                let found = run.meta().hash;
                if found != name.hash {
                    let file = path.strip_prefix(&self.home.dir).unwrap_or(&path).display().to_string();
                    let what = format!("the content hash is {found:032x}, the manifest says {:032x}", name.hash);
                    report.damage.push(Damage { file, offset: 0, what });
                }
                found == name.hash
            });
            all = all.zip(run).map(|(all, run)| [all, vec![run]].concat());
        }
        Ok(all)
    }

    /// The registered reflexes, empty where none are named; none when they cannot be used.
    fn registrations(&self, named: Option<&RunName>, report: &mut Report) -> Result<Option<Vec<u8>>, Fault> {
        let Some(named) = named else { return Ok(Some(Vec::new())) };
        let path = runs_dir(self.dir).join(&named.name);
        if let Ok(handle) = File::open(&path) {
            forget_cache(&handle);
        }
        let what = match registrations::read(self.dir, named) {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(ManifestError::Io { source, .. }) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Fault::io(&path)(source));
            }
            Err(ManifestError::WrongRun { expected, found, .. }) => {
                format!("the content hash is {found:032x}, the manifest says {expected:032x}")
            }
            Err(_) => "it is missing".to_owned(),
        };
        let file = path.strip_prefix(&self.home.dir).unwrap_or(&path).display().to_string();
        report.damage.push(Damage { file, offset: 0, what });
        Ok(None)
    }

    fn one(&mut self, name: &RunName, kind: Kind, report: &mut Report) -> Result<Option<Arc<Run>>, Fault> {
        let path = runs_dir(self.dir).join(&name.name);
        let run = match self.sound.get(&name.name) {
            Some(known) => known.clone(),
            None => {
                let run = self.noted(&path, open(&path), Run::meta, report)?;
                self.sound.insert(name.name.clone(), run.clone());
                run
            }
        };
        let Some(run) = run else { return Ok(None) };
        let file = || path.strip_prefix(&self.home.dir).unwrap_or(&path).display().to_string();
        let meta = run.meta();
        if meta.hash != name.hash {
            let what = format!("the content hash is {:032x}, the manifest says {:032x}", meta.hash, name.hash);
            report.damage.push(Damage { file: file(), offset: 0, what });
            return Ok(None);
        }
        if meta.kind != kind as u8 {
            let what = format!("its rows are of kind {}, the manifest says {}", meta.kind, kind as u8);
            report.damage.push(Damage { file: file(), offset: 10, what });
            return Ok(None);
        }
        Ok(Some(run))
    }
}

/// Opens a run and reads all of it.
fn open(path: &Path) -> Result<Run, IndexError> {
    if let Ok(handle) = File::open(path) {
        forget_cache(&handle);
    }
    let run = Run::open(path)?;
    run.verify()?;
    Ok(run)
}

fn open_facts(path: &Path) -> Result<FactRun, IndexError> {
    if let Ok(handle) = File::open(path) {
        forget_cache(&handle);
    }
    let run = FactRun::open(path)?;
    run.verify()?;
    Ok(run)
}
