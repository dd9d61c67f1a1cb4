//! Reads a configuration: text to tree, tree against schema, meaning, typed.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tidegate_etcd::RegistryUrl;

use super::{
    formats::Wrong,
    meaning,
    model::{ClientTls, Config},
    pressure::PressureSetting,
    problem::{Problem, Problems, Severity},
    schema,
    secret::SecretSetting,
    structure, tree,
    watch::Fingerprint,
};

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file. Relative paths in it begin at its directory.
    File(PathBuf),
    /// A text and what to call it. Relative paths in it begin at the working directory.
    Text {
        /// What problems call it.
        name: String,
        /// The YAML.
        text: String,
    },
}

/// A configuration that was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says; its paths are resolved.
    pub config: Config,
    /// What is odd about it, but no error.
    pub warnings: Problems,
    /// The files that it was made of: itself, certificates, keys.
    pub files: Vec<PathBuf>,
    /// What was in these files, so that a watch knows whether they changed since.
    pub fingerprint: Fingerprint,
}

impl Loaded {
    /// A configuration that was made, not read: there is nothing to watch.
    pub fn given(config: &Config) -> Self {
        Self {
            config: config.clone(),
            warnings: Problems::default(),
            files: Vec::new(),
            fingerprint: Fingerprint::default(),
        }
    }
}

/// Reads and checks a configuration.
///
/// # Errors
/// All that is wrong, warnings included, in the order of the text.
pub fn load(source: &Source) -> Result<Loaded, Problems> {
    let (name, bytes) = match source {
        Source::File(path) => {
            let name = path.display().to_string();
            let bytes = read(path).map_err(|Wrong { message, remedy }| {
                Problems::new(&name, "", vec![Problem::error(message, remedy)])
            })?;
            (name, bytes)
        }
        Source::Text { name, text } => (name.clone(), text.clone().into_bytes()),
    };
    let text = String::from_utf8(bytes).map_err(|wrong| {
        let valid = String::from_utf8_lossy(wrong.as_bytes()).into_owned();
        let at = wrong.utf8_error().valid_up_to();
        let problem = Problem::error("the text is not UTF-8", "save it as UTF-8");
        Problems::new(&name, &valid, vec![problem.at(&(at..at + 1))])
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let base = base_of(source);
    let mut problems = Vec::new();
    let config = check(text, &base, &mut problems);
    let all = Problems::new(&name, text, problems);
    match config {
        Some(mut config) if all.errors() == 0 => {
            resolve(&mut config, &base);
            let mut files: Vec<PathBuf> = Vec::new();
            let mut fingerprint = Fingerprint::default();
            if let Source::File(path) = source {
                files.push(path.clone());
                fingerprint.add(text.as_bytes());
            }
            for path in paths(&mut config) {
                files.push(path.clone());
                fingerprint.add_file(path);
            }
            Ok(Loaded { config, warnings: all, files, fingerprint })
        }
        Some(_) | None => Err(all),
    }
}

/// Everything between the text and the typed configuration; none when there is an error among `problems`.
fn check(text: &str, base: &Path, problems: &mut Vec<Problem>) -> Option<Config> {
    let root = tree::parse(text, problems)?;
    let json = structure::check(schema::value(), &root, problems);
    meaning::check(&root, base, problems);
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return None;
    }
    match Config::deserialize(json) {
        Ok(config) if limits(&root, &config, problems) => Some(config),
        Ok(_) => None,
        // The schema is made from the same model, so this is a gap between the two; it must not be taken as valid.
        Err(gap) => {
            problems.push(Problem::error(format!("can not be read: {gap}"), ""));
            None
        }
    }
}

/// Whether each limit can be kept; what no counter can keep is reported.
fn limits(root: &tree::Node, config: &Config, problems: &mut Vec<Problem>) -> bool {
    let before = problems.len();
    for entry in root.get("limits").map_or(&[][..], tree::Node::entries) {
        let Some(limit) = config.limits.get(&entry.key) else { continue };
        if let Err(wrong) = limit.rule() {
            let wrong = wrong.to_string();
            let (message, remedy) = wrong.split_once("; ").unwrap_or((&wrong, ""));
            let setting = format!("limits.{}", entry.key.escape_debug());
            problems.push(Problem::error(message, remedy).at(&entry.key_span).of(setting));
        }
    }
    problems.len() == before
}

fn read(path: &Path) -> Result<Vec<u8>, Wrong> {
    let cannot = |why: String, remedy: &str| Wrong::new(format!("can not be read: {why}"), remedy);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            cannot(error.to_string(), "let the user that runs tidegate read it, and enter its directory")
        }
        _ => cannot(error.to_string(), ""),
    };
    let meta = std::fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => cannot("there is no such file".into(), "give the path of a YAML file"),
        _ => failed(error),
    })?;
    if meta.is_dir() {
        return Err(cannot("it is a directory".into(), "give the path of a YAML file"));
    }
    let mut bytes = Vec::new();
    // A pipe does not tell its length before.
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(tree::MOST_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > tree::MOST_BYTES {
        return Err(cannot("it is too large".into(), "a configuration has at most 1 MiB"));
    }
    Ok(bytes)
}

fn base_of(source: &Source) -> PathBuf {
    match source {
        Source::File(path) => path.parent().map(Path::to_owned).unwrap_or_default(),
        Source::Text { .. } => PathBuf::new(),
    }
}

fn resolve(config: &mut Config, base: &Path) {
    for path in paths(config) {
        *path = base.join(&*path);
    }
    // These are not watched: the gateway writes them, or reads them again by itself.
    for file in config.sessions.values_mut().filter_map(|session| session.file.as_mut()) {
        *file = base.join(&*file);
    }
    if let PressureSetting::On(pressure) = &mut config.pressure {
        pressure.root = base.join(&pressure.root);
    }
    let Some(registry) = &mut config.registry else { return };
    if let Ok(RegistryUrl::File(path)) = registry.url.parse() {
        registry.url = RegistryUrl::File(base.join(path)).to_string();
    }
    if let Some(snapshot) = &mut registry.snapshot {
        *snapshot = base.join(&*snapshot);
    }
}

/// Every path in a configuration.
fn paths(config: &mut Config) -> impl Iterator<Item = &mut PathBuf> {
    let listener = config.listen.tls.iter_mut().flat_map(|tls| [&mut tls.cert, &mut tls.key]);
    let upstreams = config.upstreams.values_mut().filter_map(|upstream| upstream.tls.as_mut());
    let upstreams = upstreams.flat_map(of_tls);
    let roots = config.store.tls.iter_mut().flat_map(|tls| &mut tls.roots);
    let (registry_tls, registry_password) = match &mut config.registry {
        Some(registry) => (registry.tls.as_mut(), registry.password.as_mut()),
        None => (None, None),
    };
    let registry = registry_tls.into_iter().flat_map(of_tls);
    let store = config.store.password.iter_mut().chain(config.store.key_secret.as_mut());
    let passwords = store.chain(registry_password);
    let passwords = passwords.filter_map(file);
    let tokens = config.tokens.values_mut().flat_map(|token| {
        let secrets = [&mut token.client_secret, &mut token.key].into_iter().flatten();
        let secrets = secrets.chain(token.dpop.as_mut().and_then(|dpop| dpop.key.as_mut()));
        secrets.filter_map(file).chain(token.tls.iter_mut().flat_map(of_tls))
    });
    let sessions = config.sessions.values_mut().flat_map(|session| {
        let secrets = [&mut session.client_secret, &mut session.key].into_iter().flatten();
        let secrets = secrets.chain(session.dpop.as_mut().and_then(|dpop| dpop.key.as_mut()));
        let secrets = secrets.chain(&mut session.keys).filter_map(file);
        secrets.chain(session.tls.iter_mut().flat_map(of_tls))
    });
    listener.chain(upstreams).chain(roots).chain(registry).chain(passwords).chain(tokens).chain(sessions)
}

/// The file that a secret is in, if it is in one.
fn file(secret: &mut SecretSetting) -> Option<&mut PathBuf> {
    match secret {
        SecretSetting::File(path) => Some(path),
        SecretSetting::Env(_) => None,
    }
}

fn of_tls(tls: &mut ClientTls) -> impl Iterator<Item = &mut PathBuf> {
    [&mut tls.roots, &mut tls.cert, &mut tls.key].into_iter().flatten()
}
