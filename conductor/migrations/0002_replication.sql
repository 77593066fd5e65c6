-- Volumes with several replicas. Whatever was made before has one shard and one replica.

-- Numbers of nodes are given once and never again, also when a node is removed.
ALTER TABLE settings ADD COLUMN last_node BIGINT NOT NULL DEFAULT 0;

-- state: active, draining (being emptied), removed.
ALTER TABLE nodes ADD COLUMN id BIGINT NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN rack TEXT;
ALTER TABLE nodes ADD COLUMN state TEXT NOT NULL DEFAULT 'active'
    CHECK (state IN ('active', 'draining', 'removed'));
UPDATE nodes SET id = (
    SELECT COUNT(*) FROM nodes AS n WHERE n.created_ms < nodes.created_ms
        OR (n.created_ms = nodes.created_ms AND n.name <= nodes.name));
UPDATE settings SET last_node = (SELECT COUNT(*) FROM nodes);
CREATE UNIQUE INDEX nodes_id ON nodes (id);

-- Where other nodes reach a node, if not where hosts do.
CREATE TABLE peer_portals (
    node      TEXT NOT NULL REFERENCES nodes (name),
    transport TEXT NOT NULL,
    address   TEXT NOT NULL,
    service   TEXT NOT NULL,
    PRIMARY KEY (node, transport, address, service)
);

-- A retired disk gets nothing new, and what is on it moves away.
ALTER TABLE disks ADD COLUMN retired BOOLEAN NOT NULL DEFAULT FALSE;

-- Decisions about a volume compare and swap `epoch`. `leader` is a number of a node;
-- `leader_process` is an unsigned number of 64 bits, 0 while the leader has not claimed.
ALTER TABLE volumes ADD COLUMN epoch BIGINT NOT NULL DEFAULT 1;
ALTER TABLE volumes ADD COLUMN leader BIGINT;
ALTER TABLE volumes ADD COLUMN leader_process BIGINT NOT NULL DEFAULT 0;
ALTER TABLE volumes ADD COLUMN reign BIGINT NOT NULL DEFAULT 0;
ALTER TABLE volumes ADD COLUMN min_in_sync BIGINT NOT NULL DEFAULT 1;
ALTER TABLE volumes ADD COLUMN copies BIGINT NOT NULL DEFAULT 1;
-- The largest volume, 64 TiB: one shard, however much it grows.
ALTER TABLE volumes ADD COLUMN shard_blocks BIGINT NOT NULL DEFAULT 17179869184;

-- A replica in the state `wanted` is a member of its shard.
ALTER TABLE replicas ADD COLUMN shard BIGINT NOT NULL DEFAULT 0;
ALTER TABLE replicas ADD COLUMN node BIGINT NOT NULL DEFAULT 0;
ALTER TABLE replicas ADD COLUMN in_sync BOOLEAN NOT NULL DEFAULT TRUE;
UPDATE replicas SET node = (
    SELECT n.id FROM disks d JOIN nodes n ON n.name = d.node WHERE d.uuid = replicas.disk);
CREATE INDEX replicas_node ON replicas (node) WHERE state = 'wanted';
CREATE UNIQUE INDEX replicas_place ON replicas (volume, shard, node) WHERE state = 'wanted';

UPDATE volumes SET leader = (
    SELECT MIN(r.node) FROM replicas r WHERE r.volume = volumes.uuid AND r.state = 'wanted');
CREATE INDEX volumes_leader ON volumes (leader) WHERE deleted_ms IS NULL;
