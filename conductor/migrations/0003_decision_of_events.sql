-- Which decision wrote an event: by this a conductor whose COMMIT was not answered reads back what
-- became of it. Events of earlier versions have none.
ALTER TABLE events ADD COLUMN decision UUID;
