//! Calls of nodes that lead volumes: each asks for a decision and learns the newest configuration.

use std::sync::Arc;

use afs_decisions::Asker;
use axum::Json;
use uuid::Uuid;

use crate::api::{
    AccuseRequest, AdmitRequest, ClaimRequest, DecisionAnswer, ErrorBody, RenewRequest,
};
use crate::db::{Asked, DbError, Decided};
use crate::server::answer::Answer;
use crate::server::extract::{Body, Path};
use crate::server::front::Active;

/// More nodes than one cluster has.
const UNHEARD_MAX: usize = 1024;

/// Claim a volume
///
/// Every start of a leader takes a new epoch; the same process asking again gets none.
#[utoipa::path(post, path = "/api/v1/internal/volumes/{uuid}/claim", tag = "nodes",
    request_body = ClaimRequest,
    params(("uuid" = Uuid, Path, description = "The volume")),
    responses((status = 200, body = DecisionAnswer), (status = "default", body = ErrorBody)))]
pub(super) async fn claim(
    Active(shared): Active,
    Path(volume): Path<Uuid>,
    Body(ClaimRequest { node, process }): Body<ClaimRequest>,
) -> Answer<DecisionAnswer> {
    answer(shared.db.claim(volume, node, process).await)
}

/// Take a new epoch with the same replicas
#[utoipa::path(post, path = "/api/v1/internal/volumes/{uuid}/renew", tag = "nodes",
    request_body = RenewRequest,
    params(("uuid" = Uuid, Path, description = "The volume")),
    responses((status = 200, body = DecisionAnswer), (status = "default", body = ErrorBody)))]
pub(super) async fn renew(
    Active(shared): Active,
    Path(volume): Path<Uuid>,
    Body(RenewRequest { node, process, epoch }): Body<RenewRequest>,
) -> Answer<DecisionAnswer> {
    answer(shared.db.renew(volume, Asker { node, process, epoch }).await)
}

/// Drop an in-sync replica
///
/// Denied when too few would remain, or when the accuser is itself the one that is cut off: what
/// the accused last said of its peers counts as much as what the accuser says.
#[utoipa::path(post, path = "/api/v1/internal/volumes/{uuid}/accuse", tag = "nodes",
    request_body = AccuseRequest,
    params(("uuid" = Uuid, Path, description = "The volume")),
    responses((status = 200, body = DecisionAnswer), (status = "default", body = ErrorBody)))]
pub(super) async fn accuse(
    Active(shared): Active,
    Path(volume): Path<Uuid>,
    Body(request): Body<AccuseRequest>,
) -> Answer<DecisionAnswer> {
    let AccuseRequest { node, process, epoch, shard, replica, unreachable, unheard } = request;
    let asker = Asker { node, process, epoch };
    // Who was deposed while it stood still finds everybody silent. That says nothing about them, and would stand against this
    // node for as long as evidence counts, should it be elected again.
    if shared.db.leads(volume, asker).await? {
        for peer in unheard.into_iter().take(UNHEARD_MAX).filter(|peer| *peer != node) {
            shared.live.accuse(node, peer);
        }
        if unreachable && let Some(accused) = shared.db.node_of_replica(volume, replica).await? {
            shared.live.accuse(node, accused);
        }
    }
    let beliefs = Arc::new(shared.beliefs().await?);
    answer(shared.db.accuse(volume, asker, shard, replica, beliefs).await)
}

/// Admit a replica that has everything
#[utoipa::path(post, path = "/api/v1/internal/volumes/{uuid}/admit", tag = "nodes",
    request_body = AdmitRequest,
    params(("uuid" = Uuid, Path, description = "The volume")),
    responses((status = 200, body = DecisionAnswer), (status = "default", body = ErrorBody)))]
pub(super) async fn admit(
    Active(shared): Active,
    Path(volume): Path<Uuid>,
    Body(request): Body<AdmitRequest>,
) -> Answer<DecisionAnswer> {
    let AdmitRequest { node, process, epoch, shard, replica } = request;
    let asked = shared.db.admit(volume, Asker { node, process, epoch }, shard, replica).await?;
    if asked.value.denied.is_none()
        && let Some(holder) = shared.db.node_of_replica(volume, replica).await?
    {
        shared.live.reconciled(node, holder);
    }
    answer(Ok(asked))
}

fn answer(asked: Result<Decided<Asked>, DbError>) -> Answer<DecisionAnswer> {
    let Asked { config, denied } = asked?.value;
    Ok(Json(DecisionAnswer { config, denied }))
}
