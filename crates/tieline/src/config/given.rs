//! [`Given`]: all that an operator has given a node, from which its settings are read, at its start and whenever they change.

use super::error::{ConfigError, ConfigErrors};
use super::layers::Layers;
use super::source::{Document, Source};
use super::{CONFIG_VARIABLE, Settings};
use tieline_core::token::Keys;

/// What was given at the start.
#[derive(Clone)]
pub struct Given {
    source: Option<Source>,
    variables: Vec<(String, String)>,
    flags: Vec<(&'static str, Vec<String>)>,
}

/// What was read, checked whole.
pub struct Checked {
    /// The text of settings, if there is one.
    pub document: Option<Document>,
    /// The settings.
    pub settings: Settings,
    /// Where each is from.
    pub layers: Layers,
    /// The access keys, those in files too.
    pub keys: Keys,
}

impl Given {
    /// Takes what stands behind `--config`, the environment, and the flags. The flag's file wins over the variable's.
    ///
    /// # Errors
    /// When `--config` is the address of nothing.
    pub fn new(
        config: Option<&str>,
        variables: Vec<(String, String)>,
        flags: Vec<(&'static str, Vec<String>)>,
    ) -> Result<Self, ConfigErrors> {
        let named = || variables.iter().find(|(name, _)| name == CONFIG_VARIABLE).map(|(_, text)| &**text);
        let source = config.or_else(named).map(Source::parse).transpose();
        let source = source.map_err(|error| ConfigErrors(vec![error.into()]))?;
        Ok(Given { source, variables, flags })
    }

    /// Where the text of settings is, if there is one.
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// A variable of the environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, text)| &**text)
    }

    /// Reads the text of settings, and everything.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub async fn load(&self) -> Result<Checked, ConfigErrors> {
        let document = match &self.source {
            Some(source) => Some(source.read().await.map_err(|error| ConfigErrors(vec![error.into()]))?),
            None => None,
        };
        self.read(document)
    }

    /// Reads everything, with this text of settings.
    ///
    /// # Errors
    /// Everything that is wrong: text that is no TOML, keys that are not known, values that are not taken, files of keys that
    /// cannot be read.
    pub fn read(&self, document: Option<Document>) -> Result<Checked, ConfigErrors> {
        let mut layers = Layers::default();
        let mut errors: Vec<ConfigError> = Vec::new();
        if let Some(Document { name, text }) = &document {
            errors.extend(layers.add_file(name, text));
        }
        errors.extend(layers.add_variables(self.variables.clone()));
        layers.add_flags(self.flags.iter().cloned());
        ConfigErrors::none_or(errors)?;
        let settings = Settings::read(&layers)?;
        let keys = settings.keys()?;
        Ok(Checked { document, settings, layers, keys })
    }
}
