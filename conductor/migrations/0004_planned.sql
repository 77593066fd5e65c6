-- Nothing had failed when the present leader's time began: it waits longer for its replicas.
ALTER TABLE volumes ADD COLUMN planned BOOLEAN NOT NULL DEFAULT FALSE;
