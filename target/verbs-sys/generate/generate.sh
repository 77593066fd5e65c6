#!/bin/bash
# Writes ../src/ibverbs.rs and ../src/rdmacm.rs anew from the headers of this machine. Only for those who
# change the bindings; everybody else uses the committed output.
# Needs bindgen 0.72 (`cargo install bindgen-cli --version '^0.72'`), libclang, libibverbs-dev, librdmacm-dev.
set -euo pipefail
cd "$(dirname "$0")"
bindgen=${BINDGEN:-bindgen}

common=(
  --default-enum-style consts --no-prepend-enum-name --no-layout-tests --no-doc-comments
  --use-core --ctypes-prefix libc --rust-target 1.85 --rust-edition 2024 --formatter rustfmt --rustfmt-configuration-file "$PWD/../../../rustfmt.toml"
  --dynamic-link-require-all
  # Their sizes differ between machines, and libc knows them.
  --blocklist-type 'pthread_.*|__pthread.*|__atomic_wide.*'
  --blocklist-type 'sockaddr|sockaddr_in|sockaddr_in6|sockaddr_storage|sa_family_t|in_addr.*|in6_addr.*|in_port_t'
  --default-non-copy-union-style manually_drop
)

join() { local IFS='|'; echo "$*"; }

verbs_functions=(
  ibv_get_device_list ibv_free_device_list ibv_get_device_name
  ibv_query_device ibv_alloc_pd ibv_dealloc_pd ibv_reg_mr_iova2 ibv_dereg_mr
  ibv_create_comp_channel ibv_destroy_comp_channel ibv_create_cq ibv_resize_cq ibv_destroy_cq
  ibv_get_cq_event ibv_ack_cq_events ibv_create_srq ibv_destroy_srq
  ibv_create_qp ibv_modify_qp ibv_destroy_qp
  ibv_get_async_event ibv_ack_async_event ibv_event_type_str ibv_wc_status_str
)
verbs_items=(
  'IBV_WC_.*' 'IBV_WR_.*' 'IBV_SEND_.*' 'IBV_QPT_RC' 'IBV_QPS_.*'
  'IBV_ACCESS_.*' 'IBV_EVENT_.*' 'IBV_TRANSPORT_.*'
)
cm_functions=(
  rdma_create_event_channel rdma_destroy_event_channel rdma_get_cm_event rdma_ack_cm_event
  rdma_create_id rdma_destroy_id rdma_bind_addr rdma_listen rdma_resolve_addr rdma_resolve_route
  rdma_accept rdma_connect rdma_reject rdma_disconnect
  rdma_get_devices rdma_free_devices rdma_init_qp_attr rdma_establish rdma_set_option
)

"$bindgen" "${common[@]}" --dynamic-loading Ibverbs \
  --allowlist-function "$(join "${verbs_functions[@]}")" --allowlist-var "$(join "${verbs_items[@]}")" \
  --allowlist-type 'ibv_send_wr|ibv_recv_wr|ibv_wc|ibv_sge|ibv_access_flags|ibv_send_flags|ibv_qp_attr_mask' \
  --raw-line '//! Bindings of libibverbs, written by generate/generate.sh; not for editing.' \
  --raw-line 'use libc::{pthread_cond_t, pthread_mutex_t};' \
  --output ../src/ibverbs.rs ibverbs.h

"$bindgen" "${common[@]}" --dynamic-loading Rdmacm \
  --allowlist-function "$(join "${cm_functions[@]}")" \
  --allowlist-var 'RDMA_CM_EVENT_.*|RDMA_PS_TCP|RDMA_OPTION_ID|RDMA_OPTION_ID_AFONLY|RDMA_OPTION_ID_REUSEADDR' \
  --blocklist-type '_?_?ibv_.*|_compat_ibv.*|__be32|__be64|__u32|__u64' \
  --raw-line '//! Bindings of librdmacm, written by generate/generate.sh; not for editing.' \
  --raw-line 'use crate::ibverbs::*;' --raw-line 'pub type ibv_sa_path_rec = libc::c_void;' --raw-line 'use libc::{sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage};' \
  --output ../src/rdmacm.rs rdmacm.h


# Public, so that a test can fill the table with functions of its own.
sed -i -e 's/^    __library: /    pub __library: /' ../src/ibverbs.rs ../src/rdmacm.rs

cc=${CC:-cc}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
"$cc" -o "$work/layout" layout.c && "$work/layout" > ../tests/layout/expected.rs
rustfmt --edition 2024 --config-path ../../../rustfmt.toml ../tests/layout/expected.rs
