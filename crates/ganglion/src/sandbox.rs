//! What the brain gives up before it reads its first event: files, network, new privileges.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
};

/// Locks this process in, as far as the kernel knows how: no file can be opened, created or removed, no TCP port bound or
/// connected, no process outside signalled. What is already open and mapped stays usable. Returns how far it went, in words.
pub fn enter() -> String {
    let abi = ABI::V6;
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(landlock::Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self);
    match restricted.map(|status| status.ruleset) {
        Ok(RulesetStatus::FullyEnforced) => "landlock: no files, no network, no signals".to_owned(),
        Ok(RulesetStatus::PartiallyEnforced) => {
            "landlock: files locked; this kernel cannot lock all of network and signals".to_owned()
        }
        Ok(_) => "not locked in: this kernel has no landlock".to_owned(),
        Err(error) => format!("not locked in: {error}"),
    }
}
