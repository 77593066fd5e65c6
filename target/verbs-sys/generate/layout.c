/* Prints what the C compiler makes of the structs, for tests/layout. */
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stddef.h>
#include <stdio.h>

#define SIZE(type) printf("(\"" #type "\", size_of::<" #type ">(), %zu),\n", sizeof(struct type))
#define AT(type, field, rust) \
	printf("(\"" #type "." #field "\", offset_of!(" #type ", " rust "), %zu),\n", offsetof(struct type, field))

int main(void)
{
	puts("// Written by generate/generate.sh; not for editing.");
	puts("/// What, its number in Rust, its number in C.\nfn expected() -> Vec<(&'static str, usize, usize)> {\nvec![");
	SIZE(ibv_device_attr); AT(ibv_device_attr, max_qp_wr, "max_qp_wr"); AT(ibv_device_attr, max_qp_rd_atom, "max_qp_rd_atom");
	AT(ibv_device_attr, max_srq_wr, "max_srq_wr"); AT(ibv_device_attr, phys_port_cnt, "phys_port_cnt");
	SIZE(ibv_send_wr); AT(ibv_send_wr, wr_id, "wr_id"); AT(ibv_send_wr, sg_list, "sg_list"); AT(ibv_send_wr, opcode, "opcode");
	AT(ibv_send_wr, send_flags, "send_flags"); AT(ibv_send_wr, invalidate_rkey, "__bindgen_anon_1"); AT(ibv_send_wr, wr, "wr");
	SIZE(ibv_recv_wr); AT(ibv_recv_wr, num_sge, "num_sge");
	SIZE(ibv_sge); AT(ibv_sge, length, "length"); AT(ibv_sge, lkey, "lkey");
	SIZE(ibv_wc); AT(ibv_wc, status, "status"); AT(ibv_wc, opcode, "opcode"); AT(ibv_wc, vendor_err, "vendor_err");
	AT(ibv_wc, byte_len, "byte_len"); AT(ibv_wc, qp_num, "qp_num"); AT(ibv_wc, wc_flags, "wc_flags");
	SIZE(ibv_qp_init_attr); AT(ibv_qp_init_attr, cap, "cap"); AT(ibv_qp_init_attr, qp_type, "qp_type");
	SIZE(ibv_qp_attr); AT(ibv_qp_attr, qp_access_flags, "qp_access_flags"); AT(ibv_qp_attr, cap, "cap");
	AT(ibv_qp_attr, max_rd_atomic, "max_rd_atomic"); AT(ibv_qp_attr, max_dest_rd_atomic, "max_dest_rd_atomic");
	SIZE(ibv_srq_init_attr); SIZE(ibv_async_event); AT(ibv_async_event, event_type, "event_type");
	SIZE(ibv_pd); SIZE(ibv_mr); AT(ibv_mr, lkey, "lkey"); AT(ibv_mr, rkey, "rkey");
	SIZE(ibv_comp_channel); AT(ibv_comp_channel, fd, "fd"); SIZE(ibv_context_ops);
	AT(ibv_context_ops, poll_cq, "poll_cq"); AT(ibv_context_ops, req_notify_cq, "req_notify_cq");
	AT(ibv_context_ops, post_srq_recv, "post_srq_recv"); AT(ibv_context_ops, post_send, "post_send");
	AT(ibv_context, ops, "ops"); AT(ibv_context, cmd_fd, "cmd_fd"); AT(ibv_context, async_fd, "async_fd");
	AT(ibv_cq, cqe, "cqe"); AT(ibv_qp, qp_num, "qp_num"); AT(ibv_srq, handle, "handle");
	AT(ibv_device, transport_type, "transport_type"); AT(ibv_device, name, "name");
	SIZE(rdma_event_channel); SIZE(rdma_conn_param); AT(rdma_conn_param, qp_num, "qp_num");
	SIZE(rdma_cm_event); AT(rdma_cm_event, param, "param"); AT(rdma_cm_event, status, "status");
	SIZE(rdma_cm_id); AT(rdma_cm_id, context, "context"); AT(rdma_cm_id, route, "route"); AT(rdma_cm_id, port_num, "port_num");
	SIZE(rdma_addr); AT(rdma_addr, dst_addr, "__bindgen_anon_2"); AT(rdma_addr, addr, "addr");
	puts("]\n}");
	return 0;
}
