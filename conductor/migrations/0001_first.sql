-- The first schema. SQLite and PostgreSQL run the same file: only types that both know, times as
-- milliseconds since 1970, sizes in bytes, no autoincrement (counters live in `settings`).
-- Rows of objects that hosts or disks may still remember are marked as gone, never deleted.

-- One row. Every decision compares and swaps `revision` under `fencing_token`.
CREATE TABLE settings (
    id            BIGINT PRIMARY KEY CHECK (id = 1),
    cluster       UUID   NOT NULL,
    revision      BIGINT NOT NULL,
    fencing_token BIGINT NOT NULL,
    last_event    BIGINT NOT NULL,
    last_portal   BIGINT NOT NULL
);

CREATE TABLE nodes (
    name       TEXT   PRIMARY KEY,
    created_ms BIGINT NOT NULL
);

-- A listener keeps its id for ever, also while the node does not have it (`active` false).
CREATE TABLE portals (
    id        BIGINT  PRIMARY KEY,
    node      TEXT    NOT NULL REFERENCES nodes (name),
    transport TEXT    NOT NULL,
    address   TEXT    NOT NULL,
    service   TEXT    NOT NULL,
    active    BOOLEAN NOT NULL,
    UNIQUE (node, transport, address, service)
);

CREATE TABLE disks (
    uuid        UUID   PRIMARY KEY,
    node        TEXT   NOT NULL REFERENCES nodes (name),
    kind        TEXT   NOT NULL,
    path        TEXT   NOT NULL,
    total_bytes BIGINT NOT NULL
);

CREATE TABLE volumes (
    uuid       UUID   PRIMARY KEY,
    name       TEXT   NOT NULL,
    size_bytes BIGINT NOT NULL CHECK (size_bytes > 0 AND size_bytes % 4096 = 0),
    nguid      UUID   NOT NULL UNIQUE,
    version    BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    deleted_ms BIGINT
);
CREATE UNIQUE INDEX volumes_name ON volumes (name) WHERE deleted_ms IS NULL;

-- state: wanted, retired (its node is to delete it), deleted (its node did).
CREATE TABLE replicas (
    uuid   UUID PRIMARY KEY,
    volume UUID NOT NULL REFERENCES volumes (uuid),
    disk   UUID NOT NULL REFERENCES disks (uuid),
    state  TEXT NOT NULL CHECK (state IN ('wanted', 'retired', 'deleted'))
);
CREATE INDEX replicas_volume ON replicas (volume);
CREATE INDEX replicas_disk ON replicas (disk) WHERE state <> 'deleted';

CREATE TABLE subsystems (
    nqn        TEXT    PRIMARY KEY,
    serial     TEXT    NOT NULL UNIQUE,
    allow_any  BOOLEAN NOT NULL,
    version    BIGINT  NOT NULL,
    created_ms BIGINT  NOT NULL
);

-- Outlives its subsystem: hosts may still know controllers of an earlier one of that name.
CREATE TABLE controller_ranges (
    nqn      TEXT   NOT NULL,
    node     TEXT   NOT NULL REFERENCES nodes (name),
    first_id BIGINT NOT NULL,
    last_id  BIGINT NOT NULL,
    PRIMARY KEY (nqn, node),
    UNIQUE (nqn, first_id)
);

-- A row with `removed_ms` remembers which volume an NSID meant. It outlives its subsystem, for
-- hosts that do too.
CREATE TABLE namespaces (
    nqn        TEXT    NOT NULL,
    nsid       BIGINT  NOT NULL CHECK (nsid BETWEEN 1 AND 1024),
    volume     UUID    NOT NULL REFERENCES volumes (uuid),
    read_only  BOOLEAN NOT NULL,
    removed_ms BIGINT,
    PRIMARY KEY (nqn, nsid)
);
CREATE UNIQUE INDEX namespaces_volume ON namespaces (volume) WHERE removed_ms IS NULL;

CREATE TABLE access (
    nqn  TEXT NOT NULL REFERENCES subsystems (nqn),
    host TEXT NOT NULL,
    PRIMARY KEY (nqn, host)
);

CREATE TABLE events (
    id       BIGINT PRIMARY KEY,
    at_ms    BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    severity TEXT   NOT NULL,
    kind     TEXT   NOT NULL,
    subject  TEXT   NOT NULL,
    message  TEXT   NOT NULL
);
