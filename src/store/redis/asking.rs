//! Several servers are asked the same at once, and those count that answer soon after the first: others may know of
//! something newer, and one that hangs keeps nobody waiting.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::store::Error;

/// So long after the first answer others are waited for.
const OTHERS: Duration = Duration::from_millis(50);

/// The answers that come in time, in the order in which they came, and what happened to another one.
pub(super) async fn answers<T: 'static>(
    mut asking: JoinSet<Result<T, Error>>,
    limit: Duration,
) -> (Vec<T>, Error) {
    let (mut answers, mut failure) = (Vec::new(), Error::Timeout);
    let mut deadline = Instant::now() + limit;
    while let Ok(Some(next)) = timeout_at(deadline, asking.join_next()).await {
        match next {
            Ok(Ok(answer)) => {
                answers.push(answer);
                deadline = deadline.min(Instant::now() + OTHERS);
            }
            Ok(Err(error)) => failure = error,
            Err(_broken_off) => {}
        }
    }
    // that the others are silent is for their connections to notice
    asking.detach_all();
    (answers, failure)
}
