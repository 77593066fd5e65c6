-- Nothing had failed when the present epoch was decided: the leader waits longer for its replicas.
ALTER TABLE volumes ADD COLUMN planned BOOLEAN NOT NULL DEFAULT FALSE;
