//! The tree of files and directories, in a volatile and a durable version, and what a power cut leaves of it.
//!
//! A change of names (create, rename, remove) is visible at once and stands in a log. Syncing a directory makes durable
//! the changes that touch it, and the earlier ones those build on; a rename is one change, also between two directories.
//! A power cut keeps what is durable, or with a seed also the first few of the logged changes, as a journal would.
//!
//! Deliberately absent: space, faults, time (device.rs) and the kernel (serve.rs).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use nix::libc;

use crate::content::Content;
use crate::power::{Loss, PowerCut, Random};

pub(crate) const ROOT: u64 = 1;

/// An error number of the system, as the kernel wants it.
pub(crate) type Errno = i32;

type Names = BTreeMap<OsString, u64>;

pub(crate) enum Kind {
    File(Content),
    Folder { volatile: Names, durable: Names },
}

/// One file or directory.
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) mode: u16,
    /// How many changes there had been when this one changed last: stands in for its times.
    pub(crate) changed: u64,
    /// Where it was last seen; for messages and for choosing faults.
    parent: u64,
    name: OsString,
    opens: u64,
}

/// One change of names: each `(directory, name)` now leads to that node, or nowhere.
struct Change(Vec<(u64, OsString, Option<u64>)>);

/// The whole tree.
pub(crate) struct Image {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    changes: u64,
    log: Vec<Change>,
}

impl Image {
    pub(crate) fn new() -> Self {
        let mut image = Image { nodes: BTreeMap::new(), next: ROOT, changes: 0, log: Vec::new() };
        image.add(ROOT, OsStr::new(""), Image::folder(), 0o755);
        image
    }

    pub(crate) fn file() -> Kind {
        Kind::File(Content::default())
    }

    pub(crate) fn folder() -> Kind {
        Kind::Folder { volatile: Names::new(), durable: Names::new() }
    }

    pub(crate) fn node(&self, id: u64) -> Result<&Node, Errno> {
        self.nodes.get(&id).ok_or(libc::ENOENT)
    }

    pub(crate) fn node_mut(&mut self, id: u64) -> Result<&mut Node, Errno> {
        self.changes += 1;
        let changed = self.changes;
        let node = self.nodes.get_mut(&id).ok_or(libc::ENOENT)?;
        node.changed = changed;
        Ok(node)
    }

    pub(crate) fn content(&self, id: u64) -> Result<&Content, Errno> {
        match &self.node(id)?.kind {
            Kind::File(content) => Ok(content),
            Kind::Folder { .. } => Err(libc::EISDIR),
        }
    }

    pub(crate) fn content_mut(&mut self, id: u64) -> Result<&mut Content, Errno> {
        match &mut self.node_mut(id)?.kind {
            Kind::File(content) => Ok(content),
            Kind::Folder { .. } => Err(libc::EISDIR),
        }
    }

    pub(crate) fn names(&self, folder: u64) -> Result<&Names, Errno> {
        match &self.node(folder)?.kind {
            Kind::Folder { volatile, .. } => Ok(volatile),
            Kind::File(_) => Err(libc::ENOTDIR),
        }
    }

    pub(crate) fn lookup(&self, folder: u64, name: &OsStr) -> Result<u64, Errno> {
        self.names(folder)?.get(name).copied().ok_or(libc::ENOENT)
    }

    /// The path below the root, as it was last seen: `wal/0001`.
    pub(crate) fn path(&self, id: u64) -> String {
        let mut parts = Vec::new();
        let mut at = id;
        while at != ROOT
            && let Some(node) = self.nodes.get(&at)
        {
            parts.push(node.name.to_string_lossy().into_owned());
            at = node.parent;
        }
        parts.reverse();
        parts.join("/")
    }

    pub(crate) fn find(&self, path: &str) -> Result<u64, Errno> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        parts.into_iter().try_fold(ROOT, |folder, name| self.lookup(folder, OsStr::new(name)))
    }

    pub(crate) fn parent(&self, folder: u64) -> u64 {
        self.nodes.get(&folder).map_or(ROOT, |node| node.parent)
    }

    pub(crate) fn create(&mut self, folder: u64, name: &OsStr, kind: Kind, mode: u16) -> Result<u64, Errno> {
        if self.names(folder)?.contains_key(name) {
            return Err(libc::EEXIST);
        }
        let id = self.add(folder, name, kind, mode);
        self.change(Change(vec![(folder, name.to_owned(), Some(id))]));
        Ok(id)
    }

    pub(crate) fn remove(&mut self, folder: u64, name: &OsStr, want_folder: bool) -> Result<(), Errno> {
        let id = self.lookup(folder, name)?;
        match (&self.node(id)?.kind, want_folder) {
            (Kind::File(_), true) => return Err(libc::ENOTDIR),
            (Kind::Folder { .. }, false) => return Err(libc::EISDIR),
            (Kind::Folder { volatile, .. }, true) if !volatile.is_empty() => return Err(libc::ENOTEMPTY),
            _ => {}
        }
        self.change(Change(vec![(folder, name.to_owned(), None)]));
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), keep_target: bool) -> Result<(), Errno> {
        let id = self.lookup(from.0, from.1)?;
        if from == to {
            return Ok(());
        }
        if let Ok(target) = self.lookup(to.0, to.1) {
            match (&self.node(target)?.kind, &self.node(id)?.kind) {
                _ if keep_target => return Err(libc::EEXIST),
                (Kind::Folder { volatile, .. }, _) if !volatile.is_empty() => return Err(libc::ENOTEMPTY),
                (Kind::Folder { .. }, Kind::File(_)) => return Err(libc::EISDIR),
                (Kind::File(_), Kind::Folder { .. }) => return Err(libc::ENOTDIR),
                _ => {}
            }
        }
        self.change(Change(vec![(from.0, from.1.to_owned(), None), (to.0, to.1.to_owned(), Some(id))]));
        Ok(())
    }

    /// The names of a directory are durable now.
    pub(crate) fn sync_folder(&mut self, folder: u64) {
        // Backwards: a change is taken if it touches the directory or a name that a later one taken here builds on.
        let mut names: BTreeSet<(u64, OsString)> = BTreeSet::new();
        let mut taken = vec![false; self.log.len()];
        for (at, change) in self.log.iter().enumerate().rev() {
            let touches = |(in_folder, name, _): &(u64, OsString, Option<u64>)| {
                *in_folder == folder || names.contains(&(*in_folder, name.clone()))
            };
            if change.0.iter().any(touches) {
                taken[at] = true;
                names.extend(change.0.iter().map(|(folder, name, _)| (*folder, name.clone())));
            }
        }
        let mut rest = Vec::new();
        for (change, taken) in std::mem::take(&mut self.log).into_iter().zip(taken) {
            if taken { self.make_durable(change) } else { rest.push(change) }
        }
        self.log = rest;
        self.collect();
    }

    pub(crate) fn opened(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.opens += 1;
        }
    }

    pub(crate) fn closed(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.opens = node.opens.saturating_sub(1);
        }
        self.collect();
    }

    /// Pages that take space, over all files.
    pub(crate) fn pages(&self) -> u64 {
        self.contents().map(Content::pages).sum()
    }

    pub(crate) fn dirty_pages(&self) -> u64 {
        self.contents().map(Content::dirty_pages).sum()
    }

    /// Every file and directory that is there.
    pub(crate) fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// The power fails, and comes back.
    pub(crate) fn cut(&mut self, how: PowerCut) -> Loss {
        let mut random = match how {
            PowerCut::DropUnsynced => None,
            PowerCut::Random { seed } => Some(Random::new(seed)),
        };
        let mut loss = Loss { unsynced_names: self.log.len() as u64, ..Loss::default() };
        loss.kept_names = random.as_mut().map_or(0, |random| random.below(loss.unsynced_names + 1));
        let log = std::mem::take(&mut self.log);
        log.into_iter().take(loss.kept_names as usize).for_each(|change| self.make_durable(change));

        let mut links = Vec::new();
        for (id, node) in &mut self.nodes {
            node.opens = 0;
            match &mut node.kind {
                Kind::File(content) => content.cut(random.as_mut(), &mut loss),
                Kind::Folder { volatile, durable } => {
                    volatile.clone_from(durable);
                    links.extend(durable.iter().map(|(name, child)| (*child, *id, name.clone())));
                }
            }
        }
        for (child, parent, name) in links {
            if let Some(node) = self.nodes.get_mut(&child) {
                (node.parent, node.name) = (parent, name);
            }
        }
        self.collect();
        loss
    }

    fn contents(&self) -> impl Iterator<Item = &Content> {
        self.nodes.values().filter_map(|node| match &node.kind {
            Kind::File(content) => Some(content),
            Kind::Folder { .. } => None,
        })
    }

    fn add(&mut self, parent: u64, name: &OsStr, kind: Kind, mode: u16) -> u64 {
        let id = self.next;
        self.next += 1;
        self.changes += 1;
        self.nodes.insert(id, Node { kind, mode, changed: self.changes, parent, name: name.to_owned(), opens: 0 });
        id
    }

    fn change(&mut self, change: Change) {
        for (folder, name, id) in &change.0 {
            if let Ok(Node { kind: Kind::Folder { volatile, .. }, .. }) = self.node_mut(*folder) {
                link(volatile, name, *id);
            }
            if let Some(node) = id.and_then(|id| self.nodes.get_mut(&id)) {
                (node.parent, node.name) = (*folder, name.clone());
            }
        }
        self.log.push(change);
    }

    fn make_durable(&mut self, change: Change) {
        for (folder, name, id) in &change.0 {
            if let Some(Node { kind: Kind::Folder { durable, .. }, .. }) = self.nodes.get_mut(folder) {
                link(durable, name, *id);
            }
        }
    }

    /// Lets go of nodes that no name leads to, in neither version nor in the log, and that nobody has open.
    fn collect(&mut self) {
        let logged = self.log.iter().flat_map(|change| change.0.iter().filter_map(|(_, _, id)| *id));
        let open = self.nodes.iter().filter(|(_, node)| node.opens > 0).map(|(id, _)| *id);
        let mut reached = BTreeSet::new();
        let mut found: Vec<u64> = logged.chain(open).chain([ROOT]).collect();
        while let Some(id) = found.pop() {
            if reached.insert(id)
                && let Some(Node { kind: Kind::Folder { volatile, durable }, .. }) = self.nodes.get(&id)
            {
                found.extend(volatile.values().chain(durable.values()));
            }
        }
        self.nodes.retain(|id, _| reached.contains(id));
    }
}

fn link(names: &mut Names, name: &OsStr, id: Option<u64>) {
    match id {
        Some(id) => names.insert(name.to_owned(), id),
        None => names.remove(name),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths of everything that is there, sorted.
    fn paths(image: &Image) -> Vec<String> {
        let mut paths: Vec<String> =
            image.ids().into_iter().filter(|id| *id != ROOT).map(|id| image.path(id)).collect();
        paths.sort();
        paths
    }

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    /// Two directories that are durable, and a durable file `a/x`.
    fn two_folders() -> (Image, u64, u64) {
        let mut image = Image::new();
        let a = image.create(ROOT, name("a"), Image::folder(), 0o755).unwrap();
        let b = image.create(ROOT, name("b"), Image::folder(), 0o755).unwrap();
        image.create(a, name("x"), Image::file(), 0o644).unwrap();
        image.sync_folder(ROOT);
        image.sync_folder(a);
        (image, a, b)
    }

    #[test]
    fn names_are_durable_after_a_sync_of_their_own_directory_only() {
        let (mut image, a, b) = two_folders();
        image.create(a, name("y"), Image::file(), 0o644).unwrap();
        image.create(b, name("z"), Image::file(), 0o644).unwrap();
        image.sync_folder(b);
        let loss = image.cut(PowerCut::DropUnsynced);
        assert_eq!((loss.unsynced_names, paths(&image)), (1, ["a", "a/x", "b", "b/z"].map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_rename_between_directories_is_durable_with_either_of_them_and_never_loses_the_file() {
        for sync in [None, Some(0), Some(1)] {
            let (mut image, a, b) = two_folders();
            image.rename((a, name("x")), (b, name("y")), false).unwrap();
            if let Some(which) = sync {
                image.sync_folder([a, b][which]);
            }
            image.cut(PowerCut::DropUnsynced);
            let expected = if sync.is_some() { ["a", "b", "b/y"] } else { ["a", "a/x", "b"] };
            assert_eq!(paths(&image), expected);
        }
    }

    #[test]
    fn a_sync_takes_along_the_earlier_changes_that_it_builds_on() {
        let (mut image, a, b) = two_folders();
        image.create(a, name("new"), Image::file(), 0o644).unwrap();
        image.create(a, name("other"), Image::file(), 0o644).unwrap();
        image.rename((a, name("new")), (b, name("new")), false).unwrap();
        image.sync_folder(b);
        image.sync_folder(a);
        image.cut(PowerCut::DropUnsynced);
        assert_eq!(paths(&image), ["a", "a/other", "a/x", "b", "b/new"], "the creation does not come back later");
    }

    #[test]
    fn a_random_cut_keeps_the_first_of_the_changes_in_their_order() {
        let mut kept = BTreeSet::new();
        for seed in 0..40 {
            let mut image = Image::new();
            for at in ["1", "2", "3"] {
                image.create(ROOT, name(at), Image::file(), 0o644).unwrap();
            }
            let loss = image.cut(PowerCut::Random { seed });
            assert_eq!(paths(&image), ["1", "2", "3"][..loss.kept_names as usize]);
            kept.insert(loss.kept_names);
        }
        assert_eq!(kept.len(), 4, "every length happens");
    }

    #[test]
    fn a_removed_file_lives_while_it_is_open_or_its_removal_is_not_durable() {
        let (mut image, a, _) = two_folders();
        let x = image.lookup(a, name("x")).unwrap();
        image.opened(x);
        image.remove(a, name("x"), false).unwrap();
        image.sync_folder(a);
        assert!(image.node(x).is_ok());
        image.closed(x);
        assert!(image.node(x).is_err());
        assert_eq!(image.remove(ROOT, name("gone"), false), Err(libc::ENOENT));
    }
}
