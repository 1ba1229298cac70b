//! [`StoreError`]: whether what was asked has happened, as far as anybody can know. Engines map their own errors to it.

/// Why a store did not do what it was asked. Cloned to everybody whose request was in the same batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing happened, and nothing will.
    #[error("the store refuses: {0}")]
    Refused(Refusal),
    /// It may have happened or not, or may still. Only asking again with the same key, or reading, tells.
    #[error("the store does not say whether it has stored: {0}")]
    Unknown(String),
}

/// Why nothing happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The queue in front of the engine has no room.
    #[error("its queue is full")]
    QueueFull,
    /// Another process held the engine for longer than a request waits.
    #[error("another process has held it for too long")]
    Busy,
    /// There is no room on the disk, or within the store's own bound.
    #[error("there is no room left")]
    NoRoom,
    /// The engine may not write.
    #[error("it may not be written to")]
    ReadOnly,
    /// What the engine finds is not what it wrote.
    #[error("its data is damaged: {0}")]
    Damaged(String),
    /// What was asked is larger than any store takes.
    #[error("it is too large")]
    TooLarge,
    /// The engine cannot be reached or fails.
    #[error("it fails: {0}")]
    Failed(String),
    /// The store was closed.
    #[error("it is closed")]
    Closed,
}

impl StoreError {
    /// Whether the same request may fare better a little later, without anybody's help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            StoreError::Unknown(_) => true,
            StoreError::Refused(refusal) => {
                matches!(refusal, Refusal::QueueFull | Refusal::Busy | Refusal::NoRoom | Refusal::Failed(_))
            }
        }
    }
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        StoreError::Refused(refusal)
    }
}
