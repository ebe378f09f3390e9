-- The roles of tokenbroker, each with the least that it needs. Run it with psql as a superuser, connected to the
-- database that shall hold tokenbroker; again at any time: it changes nothing that is as it should be.
--
--   psql -X -d tokenbroker -f roles.sql
--
-- Then give each role a password (\password tokenbroker_broker), or another way to prove itself in pg_hba.conf.
--
--   tokenbroker_migrator  owns the schema; makes and changes tables. Used at installation and at upgrades.
--   tokenbroker_broker    what brokers connect as. Reads and writes rows; appends to the audit log and cannot change
--                         or delete what is in it; makes no tables.
--   tokenbroker_auditor   reads the audit log, and nothing else.
--
-- What each may do with which table is in the function tokenbroker.give_rights(), which every migration calls.

\set ON_ERROR_STOP on
BEGIN;
-- No function that somebody has put into this database is taken for one of PostgreSQL's.
SET LOCAL search_path = pg_catalog;

SELECT format('CREATE ROLE %I LOGIN', name)
  FROM unnest(ARRAY['tokenbroker_migrator', 'tokenbroker_broker', 'tokenbroker_auditor']) AS name
 WHERE name NOT IN (SELECT rolname FROM pg_roles)
\gexec

-- Bounds that hold behind PgBouncer too, which passes no settings of its clients on.
ALTER ROLE tokenbroker_migrator SET lock_timeout = '60s';
ALTER ROLE tokenbroker_migrator SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE tokenbroker_broker SET statement_timeout = '5s';
ALTER ROLE tokenbroker_broker SET lock_timeout = '2500ms';
ALTER ROLE tokenbroker_broker SET idle_in_transaction_session_timeout = '5s';
ALTER ROLE tokenbroker_auditor SET statement_timeout = '10min';
ALTER ROLE tokenbroker_auditor SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE tokenbroker_auditor SET default_transaction_read_only = on;

-- Nobody but these: no other tables in this database, not even temporary ones.
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database())
\gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO tokenbroker_migrator, tokenbroker_broker, tokenbroker_auditor',
              current_database())
\gexec
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- The schema belongs to the migrator, and so does whatever another role has made in it.
CREATE SCHEMA IF NOT EXISTS tokenbroker;
ALTER SCHEMA tokenbroker OWNER TO tokenbroker_migrator;
SELECT format('ALTER TABLE tokenbroker.%I OWNER TO tokenbroker_migrator', tablename)
  FROM pg_tables WHERE schemaname = 'tokenbroker' AND tableowner <> 'tokenbroker_migrator'
\gexec
SELECT format('ALTER FUNCTION %s OWNER TO tokenbroker_migrator', oid::regprocedure)
  FROM pg_proc WHERE pronamespace = 'tokenbroker'::regnamespace
\gexec
-- The migrator may have changed give_rights, so it runs with the migrator's rights and not with those of the superuser
-- who runs this: inside a function like this one, nothing can change the role back.
CREATE FUNCTION pg_temp.give_rights() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  IF to_regprocedure('tokenbroker.give_rights()') IS NOT NULL THEN
    PERFORM tokenbroker.give_rights();
  END IF;
END $$;
ALTER FUNCTION pg_temp.give_rights() OWNER TO tokenbroker_migrator;
SELECT pg_temp.give_rights();
DROP FUNCTION pg_temp.give_rights();

COMMIT;
