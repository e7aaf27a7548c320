//! Which crates are linked: their licences, and that nothing that speaks a network protocol is among them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// Licences that a dependency may have; of alternatives, one is enough.
const LICENCES: [&str; 11] = [
    "Apache-2.0",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Zlib",
    "0BSD",
    "MPL-2.0",
    "Unicode-3.0",
];

/// Crates that speak a network protocol. None may be reachable from the binary.
const BANNED: [&str; 14] = [
    "hyper",
    "reqwest",
    "h2",
    "h3",
    "tungstenite",
    "rustls",
    "native-tls",
    "openssl",
    "openssl-sys",
    "curl",
    "ureq",
    "quinn",
    "warp",
    "axum",
];

/// The binary that must stay without them.
const BINARY: &str = "veritas-cli";

pub(crate) fn check(root: &Path) -> Result<()> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .context("cargo metadata")?;
    let mut problems = licences(&metadata);
    problems.extend(banned(&metadata)?);
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

fn licences(metadata: &Metadata) -> Vec<String> {
    let members = metadata.workspace_members.iter().collect::<BTreeSet<_>>();
    let foreign = metadata.packages.iter().filter(|package| !members.contains(&package.id));
    foreign
        .filter(|package| !has_good_licence(package))
        .map(|package| {
            let found = package.license.as_deref().unwrap_or("none in its manifest");
            format!("{} {}: the licence is {found}", package.name, package.version)
        })
        .collect()
}

fn has_good_licence(package: &Package) -> bool {
    let Some(text) = &package.license else { return false };
    // Old manifests write alternatives with a slash.
    let text = text.replace('/', " OR ");
    let Ok(expression) = spdx::Expression::parse_mode(&text, spdx::ParseMode::LAX) else { return false };
    expression.evaluate(|requirement| requirement.license.id().is_some_and(|id| LICENCES.contains(&id.name)))
}

fn banned(metadata: &Metadata) -> Result<Vec<String>> {
    let names = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package.name.as_str()))
        .collect::<BTreeMap<_, _>>();
    let resolve = metadata.resolve.as_ref().context("cargo metadata gives no graph")?;
    let nodes = resolve.nodes.iter().map(|node| (&node.id, node)).collect::<BTreeMap<_, _>>();
    let start = names.iter().find(|(_, name)| **name == BINARY).context("the binary's crate is missing")?.0;
    let mut parents: BTreeMap<&PackageId, Vec<&PackageId>> = BTreeMap::from([(*start, Vec::new())]);
    let mut queue = VecDeque::from([*start]);
    while let Some(id) = queue.pop_front() {
        for dep in &nodes[id].deps {
            let is_linked = dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if is_linked {
                let is_new = !parents.contains_key(&dep.pkg);
                parents.entry(&dep.pkg).or_default().push(id);
                if is_new {
                    queue.push_back(&dep.pkg);
                }
            }
        }
    }
    let mut problems = Vec::new();
    for (id, parents) in &parents {
        let used_by = parents.iter().map(|parent| names[parent]).collect::<Vec<_>>();
        match names[id] {
            name if BANNED.contains(&name) => problems.push(format!("{name} is linked, by {used_by:?}")),
            "socket2" if used_by.iter().any(|name| *name != "tokio") => {
                problems.push(format!("socket2 is linked by {used_by:?}; only tokio may use it"));
            }
            _ => {}
        }
    }
    Ok(problems)
}
