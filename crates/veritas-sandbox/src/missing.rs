//! Systems without a sandbox: whether a worker may start there all the same.

use crate::{Error, Layer, Policy};

/// Whether workers can be started here, before one is: `Ok(None)` where there is a sandbox, `Ok(Some(reason))` where there
/// is none and workers run without one, because `allow_missing` says that they may.
///
/// Where there is a sandbox, `allow_missing` changes nothing: what is always required stays required.
///
/// # Errors
/// [`Error::Unsupported`] where there is none and they may not; [`Error::Required`] where the policy requires a layer
/// besides those that every policy requires: `allow_missing` does not contradict it silently.
pub fn missing(policy: &Policy, allow_missing: bool) -> Result<Option<String>, Error> {
    judge(crate::platform::HAS_SANDBOX, policy, allow_missing)
}

/// [`missing`], on a system of which it is known whether it has a sandbox.
pub(crate) fn judge(
    has_sandbox: bool,
    policy: &Policy,
    allow_missing: bool,
) -> Result<Option<String>, Error> {
    if has_sandbox {
        return Ok(None);
    }
    let platform = format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH);
    if !allow_missing {
        return Err(Error::Unsupported { platform });
    }
    let reason =
        format!("there is no sandbox for {platform} yet, and workers were allowed to run without one");
    match policy.required().find(|layer| !Layer::ALWAYS_REQUIRED.contains(layer)) {
        Some(layer) => Err(Error::Required { layer, reason }),
        None => Ok(Some(reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_a_sandbox_nothing_may_be_missing_whatever_is_allowed() {
        for policy in [Policy::default(), Policy::strict()] {
            for allow_missing in [false, true] {
                assert!(matches!(judge(true, &policy, allow_missing), Ok(None)));
            }
        }
    }

    #[test]
    fn where_there_is_none_a_worker_starts_only_if_that_was_allowed() {
        let policy = Policy::default();
        match judge(false, &policy, false) {
            Err(Error::Unsupported { platform }) => assert!(platform.contains(std::env::consts::OS)),
            other => panic!("{other:?}"),
        }
        let reason = judge(false, &policy, true).unwrap().unwrap();
        assert!(reason.contains(std::env::consts::OS) && reason.contains("allowed"), "{reason}");
    }

    #[test]
    fn a_layer_that_the_policy_requires_besides_is_not_given_up() {
        for layer in [Layer::Namespaces, Layer::Landlock, Layer::Cgroup] {
            let mut policy = Policy::default();
            policy.require([layer]);
            match judge(false, &policy, true) {
                Err(Error::Required { layer: named, .. }) => assert_eq!(named, layer),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(judge(false, &Policy::strict(), true), Err(Error::Required { .. })));
    }
}
