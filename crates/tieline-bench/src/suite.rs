//! placeholder
use crate::args::Suite;
use crate::error::BenchError;
pub(crate) fn run(_: &Suite) -> Result<(), BenchError> {
    Ok(())
}
