//! What a device can do, how often it does it, and who has it.

use crate::support::{dice::Dice, gotrue::Kind};

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    SignIn,
    FollowLink,
    UseLink,
    UseCode,
    TradeCode,
    /// An application gets a session of its own, and the device goes on with that.
    GrantApplication,
    RevokeGrant,
    /// A session of an application that an admin deletes.
    LoseApplication,
    BecomeSomebodyNew,
    /// Somebody new without a name gets one, in the same session.
    BecomePermanent,
    AskForLinkAsStranger,
    /// The device forgets its tokens; the session stays.
    Forget,
    Refresh,
    RefreshTwiceAtOnce,
    RefreshWithOldToken,
    RefreshWithUnknownToken,
    GetUser,
    GetUserWithOldToken,
    LogoutGlobal,
    LogoutLocal,
    LogoutOthers,
    LogoutWithoutScope,
    LogoutUnknownScope,
    LogoutWithOldToken,
    LogoutForged,
    LogoutWithoutSession,
    UpdateData,
    ChangePassword,
    AddFactor,
    VerifyFactor,
    RemoveFactor,
    AdminBans,
    /// For a second.
    AdminBansBriefly,
    AdminLiftsBan,
    AdminSetsPassword,
    AdminRemovesFactor,
    AdminDeletes,
    AdminDeletesSoftly,
}

use Operation as Op;

/// How often each is done, of a thousand or so.
const OFTEN: [(Operation, usize); 38] = [
    (Op::SignIn, 120),
    (Op::FollowLink, 30),
    (Op::UseLink, 20),
    (Op::UseCode, 20),
    (Op::TradeCode, 20),
    (Op::GrantApplication, 40),
    (Op::RevokeGrant, 10),
    (Op::LoseApplication, 5),
    (Op::BecomeSomebodyNew, 10),
    (Op::BecomePermanent, 10),
    (Op::AskForLinkAsStranger, 10),
    (Op::Forget, 30),
    (Op::Refresh, 220),
    (Op::RefreshTwiceAtOnce, 40),
    (Op::RefreshWithOldToken, 30),
    (Op::RefreshWithUnknownToken, 10),
    (Op::GetUser, 100),
    (Op::GetUserWithOldToken, 20),
    (Op::LogoutGlobal, 15),
    (Op::LogoutLocal, 40),
    (Op::LogoutOthers, 15),
    (Op::LogoutWithoutScope, 10),
    (Op::LogoutUnknownScope, 10),
    (Op::LogoutWithOldToken, 10),
    (Op::LogoutForged, 20),
    (Op::LogoutWithoutSession, 5),
    (Op::UpdateData, 30),
    (Op::ChangePassword, 15),
    (Op::AddFactor, 30),
    (Op::VerifyFactor, 80),
    (Op::RemoveFactor, 40),
    (Op::AdminBans, 8),
    (Op::AdminBansBriefly, 8),
    (Op::AdminLiftsBan, 40),
    (Op::AdminSetsPassword, 8),
    (Op::AdminRemovesFactor, 15),
    (Op::AdminDeletes, 3),
    (Op::AdminDeletesSoftly, 3),
];

impl Operation {
    /// One that this upstream has and means as GoTrue does.
    pub(super) fn choose(dice: &mut Dice, kind: Kind) -> Self {
        let possible: Vec<_> = OFTEN.into_iter().filter(|(operation, _)| operation.is_had_by(kind)).collect();
        let mut at = dice.below(possible.iter().map(|(_, weight)| weight).sum());
        let chosen = possible.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        chosen.unwrap().0
    }

    fn is_had_by(self, kind: Kind) -> bool {
        match self {
            Op::ChangePassword => kind.ends_others_on_password_change(),
            Op::LogoutWithoutScope => kind.logs_out_everywhere_by_default(),
            Op::LogoutWithoutSession => kind.logs_out_without_a_session_id(),
            Op::UseLink
            | Op::UseCode
            | Op::TradeCode
            | Op::GrantApplication
            | Op::RevokeGrant
            | Op::LoseApplication
            | Op::BecomeSomebodyNew
            | Op::BecomePermanent
            | Op::AddFactor
            | Op::VerifyFactor
            | Op::RemoveFactor
            | Op::AdminBans
            | Op::AdminBansBriefly
            | Op::AdminLiftsBan
            | Op::AdminSetsPassword
            | Op::AdminRemovesFactor
            | Op::AdminDeletes
            | Op::AdminDeletesSoftly => kind.has_admin_api(),
            _ => true,
        }
    }

    /// It may end sessions of its user, so what crosses it is anybody's guess.
    pub(super) fn may_end_sessions(self) -> bool {
        matches!(
            self,
            Op::LogoutGlobal
                | Op::LogoutLocal
                | Op::LogoutOthers
                | Op::LogoutWithoutScope
                | Op::LogoutWithOldToken
                | Op::LogoutWithoutSession
                | Op::ChangePassword
                | Op::RevokeGrant
                | Op::AddFactor
                | Op::VerifyFactor
                | Op::AdminSetsPassword
                | Op::AdminDeletes
                | Op::AdminDeletesSoftly
        )
    }

    /// It bans somebody or lifts a ban.
    pub(super) fn moves_bans(self) -> bool {
        matches!(self, Op::AdminBans | Op::AdminBansBriefly | Op::AdminLiftsBan)
    }

    /// It changes which assurance level sessions have.
    pub(super) fn moves_assurance(self) -> bool {
        matches!(self, Op::AddFactor | Op::VerifyFactor | Op::RemoveFactor | Op::AdminRemovesFactor)
    }
}
