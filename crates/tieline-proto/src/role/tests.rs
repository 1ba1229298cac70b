//! Roles from tokens, and grants on top of them.

use proptest::prelude::*;

use super::*;

#[test]
fn roles_give_what_they_name() {
    let roles = Roles::parse([
        "webpubsub.joinLeaveGroup",
        "webpubsub.sendToGroup.room",
        "webpubsub.sendToGroup.a.b/c ?#%ü",
        "tieline.sendToUser.bob",
        "shop.admin",
    ]);
    assert!(roles.may_join("anything"));
    assert!(roles.may_send_to_group("room") && roles.may_send_to_group("a.b/c ?#%ü"));
    assert!(!roles.may_send_to_group("Room") && !roles.may_send_to_group("a"));
    assert!(roles.may_send_to_user("bob") && !roles.may_send_to_user("bo"));
    assert!(!roles.may_send_to_all() && !roles.may_see_presence(None));
    assert!(Roles::parse(["tieline.sendToAll"]).may_send_to_all());
    assert!(Roles::parse(["tieline.presence.g"]).may_see_presence(Some("g")));
}

#[test]
fn nothing_widens_by_mistake() {
    for role in [
        "",
        "webpubsub",
        "webpubsub.",
        "webpubsub.sendToGroup.",
        "webpubsub.sendToGroup. ",
        "webpubsub.sendToGroups",
        "webpubsub.sendtogroup",
        " webpubsub.sendToGroup",
        "webpubsub.sendToGroup*",
        "tieline.sendToAll.x",
        "tieline.sendToUser.",
    ] {
        assert!(!Roles::nothing().add(role), "{role}");
        assert_eq!(Roles::parse([role]), Roles::nothing(), "{role}");
    }
}

#[test]
fn everything_is_everything() {
    let roles = Roles::everything();
    for permission in Permission::ALL {
        assert!(roles.may(permission, None) && roles.may(permission, Some("x")));
        assert!(!Roles::nothing().may(permission, None) && !Roles::nothing().may(permission, Some("x")));
    }
    assert!(roles.may_join("g") && roles.may_send_to_all() && roles.may_see_presence(None));
}

#[test]
fn a_revoked_target_is_gone_even_from_all() {
    let mut roles = Roles::parse(["webpubsub.sendToGroup"]);
    assert!(roles.revoke(Permission::SendToGroup, Some("secret")));
    assert!(!roles.may_send_to_group("secret") && roles.may_send_to_group("other"));
    assert!(!roles.may(Permission::SendToGroup, None));
    assert!(roles.grant(Permission::SendToGroup, Some("secret")));
    assert_eq!(roles, Roles::parse(["webpubsub.sendToGroup"]));
    assert!(roles.revoke(Permission::SendToGroup, None));
    assert_eq!(roles, Roles::nothing());
    assert!(
        !roles.grant(Permission::SendToGroup, Some(" ")) && !roles.revoke(Permission::SendToUser, Some(""))
    );
}

#[test]
fn permissions_have_names_in_paths() {
    assert_eq!(Permission::from_name("joinLeaveGroup"), Some(Permission::JoinLeaveGroup));
    assert_eq!(Permission::from_name("sendToGroup"), Some(Permission::SendToGroup));
    assert_eq!(Permission::from_name("sendToUser"), Some(Permission::SendToUser));
    for name in ["", "JoinLeaveGroup", "webpubsub.sendToGroup", "sendToGroup.x"] {
        assert_eq!(Permission::from_name(name), None, "{name}");
    }
}

proptest! {
    /// Whatever order grants and revokes come in, the last one about a target decides.
    #[test]
    fn the_last_word_counts(steps in prop::collection::vec((any::<bool>(), prop::option::of(0_usize..4)), 0..20)) {
        let names = ["a", "b", "c", "d"];
        let mut roles = Roles::nothing();
        let mut naive = [false; 4];
        for (give, target) in steps {
            match target {
                Some(index) => naive[index] = give,
                None => naive = [give; 4],
            }
            let target = target.map(|index| names[index]);
            if give {
                roles.grant(Permission::SendToGroup, target);
            } else {
                roles.revoke(Permission::SendToGroup, target);
            }
            for (name, expected) in names.iter().zip(naive) {
                prop_assert_eq!(roles.may_send_to_group(name), expected);
            }
        }
    }

    #[test]
    fn equal_sets_are_equal_whatever_their_order(mut roles in prop::collection::vec("webpubsub\\.(sendToGroup|joinLeaveGroup)\\.[ab]", 0..6)) {
        let one = Roles::parse(&roles);
        roles.reverse();
        prop_assert_eq!(one, Roles::parse(&roles));
    }
}
