-- The first schema: every record type, and what the adapter keeps for itself.
CREATE TABLE tokenbroker.schema_version (version integer NOT NULL, oldest_reader integer NOT NULL);
CREATE TABLE tokenbroker.health (checks bigint NOT NULL);
INSERT INTO tokenbroker.health VALUES (0);
CREATE TABLE tokenbroker.feed (
  position bigint PRIMARY KEY,
  "table" text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE TABLE tokenbroker.feed_head (position bigint NOT NULL) WITH (fillfactor = 10);
INSERT INTO tokenbroker.feed_head VALUES (0);
CREATE TABLE tokenbroker.audit_head (log bigint PRIMARY KEY, next bigint NOT NULL) WITH (fillfactor = 10);
CREATE FUNCTION tokenbroker.settled(whole boolean) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  IF whole IS NOT TRUE THEN
    RAISE EXCEPTION 'a compare-and-set was lost' USING ERRCODE = 'TB001';
  END IF;
  RETURN true;
END $$;
CREATE TABLE tokenbroker."admin" (
  "rev" bigint NOT NULL,
  "name" text COLLATE "C" NOT NULL,
  "roles" text COLLATE "C" NOT NULL,
  "credential_sha256" bytea NOT NULL,
  "disabled" bigint NOT NULL,
  "created_by" text COLLATE "C" NOT NULL,
  "created_at" bigint NOT NULL,
  "expires_at" bigint,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("name")
);
CREATE TABLE tokenbroker."audit_block" (
  "rev" bigint NOT NULL,
  "log" bigint NOT NULL,
  "seq" bigint NOT NULL,
  "count" bigint NOT NULL,
  "entries" bytea NOT NULL,
  PRIMARY KEY ("log", "seq")
);
CREATE TABLE tokenbroker."audit_log" (
  "rev" bigint NOT NULL,
  "log" bigint NOT NULL,
  "instance" text COLLATE "C" NOT NULL,
  "origin" text COLLATE "C" NOT NULL,
  "previous" bigint NOT NULL,
  "public_key" bytea NOT NULL,
  "opened_at" bigint NOT NULL,
  "closed_at" bigint,
  PRIMARY KEY ("log")
);
CREATE INDEX "audit_log.instance" ON tokenbroker."audit_log" ("instance", "log");
CREATE TABLE tokenbroker."checkpoint" (
  "rev" bigint NOT NULL,
  "log" bigint NOT NULL,
  "size" bigint NOT NULL,
  "note" text COLLATE "C" NOT NULL,
  "signed_at" bigint NOT NULL,
  PRIMARY KEY ("log", "size")
);
CREATE TABLE tokenbroker."data_key" (
  "rev" bigint NOT NULL,
  "id" text COLLATE "C" NOT NULL,
  "keyring" text COLLATE "C" NOT NULL,
  "state" text COLLATE "C" NOT NULL,
  "created_at" bigint NOT NULL,
  "seals_reserved" bigint NOT NULL,
  "commitment" bytea NOT NULL,
  "wraps" text COLLATE "C" NOT NULL,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("id")
);
CREATE INDEX "data_key.keyring" ON tokenbroker."data_key" ("keyring", "id");
CREATE TABLE tokenbroker."enrolment" (
  "rev" bigint NOT NULL,
  "id" text COLLATE "C" NOT NULL,
  "secret_sha256" bytea NOT NULL,
  "worker" text COLLATE "C" NOT NULL,
  "groups" text COLLATE "C" NOT NULL,
  "created_by" text COLLATE "C" NOT NULL,
  "created_at" bigint NOT NULL,
  "expires_at" bigint NOT NULL,
  "used_at" bigint,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("id")
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX "enrolment.expires_at" ON tokenbroker."enrolment" ("expires_at", "id");
CREATE TABLE tokenbroker."grant_" (
  "rev" bigint NOT NULL,
  "id" text COLLATE "C" NOT NULL,
  "subject" text COLLATE "C" NOT NULL,
  "pattern" text COLLATE "C" NOT NULL,
  "ttl_s" bigint NOT NULL,
  "max_ttl_s" bigint NOT NULL,
  "source_cidrs" text COLLATE "C" NOT NULL,
  "windows" text COLLATE "C" NOT NULL,
  "created_by" text COLLATE "C" NOT NULL,
  "created_at" bigint NOT NULL,
  "expires_at" bigint,
  "previous" bigint NOT NULL,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("id")
);
CREATE INDEX "grant_.subject" ON tokenbroker."grant_" ("subject", "id");
CREATE TABLE tokenbroker."idempotency" (
  "rev" bigint NOT NULL,
  "admin" text COLLATE "C" NOT NULL,
  "idempotency_key" text COLLATE "C" NOT NULL,
  "request_sha256" bytea NOT NULL,
  "status" bigint NOT NULL,
  "location" text COLLATE "C" NOT NULL,
  "expires_at" bigint NOT NULL,
  PRIMARY KEY ("admin", "idempotency_key")
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX "idempotency.expires_at" ON tokenbroker."idempotency" ("expires_at", "admin", "idempotency_key");
CREATE TABLE tokenbroker."issued" (
  "rev" bigint NOT NULL,
  "lease" text COLLATE "C" NOT NULL,
  "token" text COLLATE "C" NOT NULL,
  "worker" text COLLATE "C" NOT NULL,
  "issuer" text COLLATE "C" NOT NULL,
  "state" text COLLATE "C" NOT NULL,
  "handle" text COLLATE "C" NOT NULL,
  "content_type" text COLLATE "C" NOT NULL,
  "keyring" text COLLATE "C" NOT NULL,
  "data_key" text COLLATE "C" NOT NULL,
  "fmt" bigint NOT NULL,
  "sealed" bytea NOT NULL,
  "made_at" bigint NOT NULL,
  "ends_at" bigint,
  "due_at" bigint,
  "ended_at" bigint,
  "attempt" bigint NOT NULL,
  "error" text COLLATE "C" NOT NULL,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("lease")
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX "issued.token" ON tokenbroker."issued" ("token", "worker", "lease");
CREATE INDEX "issued.data_key" ON tokenbroker."issued" ("data_key", "lease");
CREATE INDEX "issued.state" ON tokenbroker."issued" ("state", "lease");
CREATE INDEX "issued.due_at" ON tokenbroker."issued" ("due_at", "lease")
  WHERE "due_at" IS NOT NULL;
CREATE TABLE tokenbroker."issuer" (
  "rev" bigint NOT NULL,
  "token" text COLLATE "C" NOT NULL,
  "issuer" text COLLATE "C" NOT NULL,
  "settings" text COLLATE "C" NOT NULL,
  "credentials" text COLLATE "C" NOT NULL,
  "leases_max" bigint NOT NULL,
  "worker_leases_max" bigint NOT NULL,
  "created_by" text COLLATE "C" NOT NULL,
  "created_at" bigint NOT NULL,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("token")
);
CREATE TABLE tokenbroker."keyring" (
  "rev" bigint NOT NULL,
  "name" text COLLATE "C" NOT NULL,
  "kms_keys" text COLLATE "C" NOT NULL,
  "authorize" text COLLATE "C" NOT NULL,
  "active_data_key" text COLLATE "C" NOT NULL,
  "created_at" bigint NOT NULL,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("name")
);
CREATE TABLE tokenbroker."lease" (
  "rev" bigint NOT NULL,
  "lease" text COLLATE "C" NOT NULL,
  "token" text COLLATE "C" NOT NULL,
  "version" bigint NOT NULL,
  "worker" text COLLATE "C" NOT NULL,
  "session" text COLLATE "C" NOT NULL,
  "instance" text COLLATE "C" NOT NULL,
  "grant" text COLLATE "C" NOT NULL,
  "state" text COLLATE "C" NOT NULL,
  "ttl_s" double precision NOT NULL,
  "granted_at" bigint NOT NULL,
  "expires_at" bigint NOT NULL,
  "max_expires_at" bigint NOT NULL,
  "due_at" bigint,
  "ended_at" bigint,
  "reason" text COLLATE "C" NOT NULL,
  "acked_version" bigint NOT NULL,
  "ack_failed" text COLLATE "C" NOT NULL,
  "wiped_at" bigint,
  "prune_at" bigint,
  "stage" text COLLATE "C" NOT NULL,
  "report" text COLLATE "C",
  "version_at" bigint,
  "pushed_at" bigint,
  "acked_at" bigint,
  "failed_at" bigint,
  "past" text COLLATE "C" NOT NULL,
  "member" text COLLATE "C" NOT NULL,
  PRIMARY KEY ("lease")
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX "lease.due_at" ON tokenbroker."lease" ("due_at", "lease")
  WHERE "due_at" IS NOT NULL;
CREATE INDEX "lease.prune_at" ON tokenbroker."lease" ("prune_at", "lease")
  WHERE "prune_at" IS NOT NULL;
CREATE TABLE tokenbroker."manifest" (
  "rev" bigint NOT NULL,
  "kind" text COLLATE "C" NOT NULL,
  "count" bigint NOT NULL,
  "digest" bytea NOT NULL,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("kind")
);
CREATE TABLE tokenbroker."member" (
  "rev" bigint NOT NULL,
  "token" text COLLATE "C" NOT NULL,
  "member" text COLLATE "C" NOT NULL,
  "cool_until" bigint,
  "quarantined_at" bigint,
  "reason" text COLLATE "C" NOT NULL,
  "changed_at" bigint NOT NULL,
  "version" bigint NOT NULL,
  "rejected_by" text COLLATE "C" NOT NULL,
  "rested_by" text COLLATE "C" NOT NULL,
  PRIMARY KEY ("token", "member")
);
CREATE TABLE tokenbroker."pool" (
  "rev" bigint NOT NULL,
  "token" text COLLATE "C" NOT NULL,
  "members" text COLLATE "C" NOT NULL,
  "leases_max" bigint NOT NULL,
  "cool_down_s" bigint NOT NULL,
  "witnesses" bigint NOT NULL,
  "created_by" text COLLATE "C" NOT NULL,
  "created_at" bigint NOT NULL,
  "updated_at" bigint NOT NULL,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("token")
);
CREATE TABLE tokenbroker."rollout" (
  "rev" bigint NOT NULL,
  "token" text COLLATE "C" NOT NULL,
  "id" text COLLATE "C" NOT NULL,
  "version" bigint NOT NULL,
  "before" bigint NOT NULL,
  "shares" text COLLATE "C" NOT NULL,
  "wait_s" double precision NOT NULL,
  "bake_s" double precision NOT NULL,
  "abort_above" bigint NOT NULL,
  "retire" text COLLATE "C" NOT NULL,
  "deadline_s" double precision NOT NULL,
  "state" text COLLATE "C" NOT NULL,
  "step" bigint NOT NULL,
  "step_at" bigint NOT NULL,
  "started_by" text COLLATE "C" NOT NULL,
  "started_at" bigint NOT NULL,
  "due_at" bigint,
  "answered_at" bigint,
  "ended_at" bigint,
  "reason" text COLLATE "C" NOT NULL,
  "failed" text COLLATE "C" NOT NULL,
  "unanswered" text COLLATE "C" NOT NULL,
  "holders" bigint NOT NULL,
  "confirmed" bigint NOT NULL,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("token")
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX "rollout.due_at" ON tokenbroker."rollout" ("due_at", "token")
  WHERE "due_at" IS NOT NULL;
CREATE TABLE tokenbroker."rollout_tally" (
  "rev" bigint NOT NULL,
  "token" text COLLATE "C" NOT NULL,
  "instance" text COLLATE "C" NOT NULL,
  "id" text COLLATE "C" NOT NULL,
  "step" bigint NOT NULL,
  "holders" bigint NOT NULL,
  "confirmed" bigint NOT NULL,
  "failed_count" bigint NOT NULL,
  "silent_count" bigint NOT NULL,
  "lost_count" bigint NOT NULL,
  "waiting" bigint NOT NULL,
  "failed" text COLLATE "C" NOT NULL,
  "silent" text COLLATE "C" NOT NULL,
  "lost" text COLLATE "C" NOT NULL,
  "seen_at" bigint NOT NULL,
  PRIMARY KEY ("token", "instance")
);
CREATE TABLE tokenbroker."root" (
  "rev" bigint NOT NULL,
  "id" text COLLATE "C" NOT NULL,
  "created_at" bigint NOT NULL,
  "wraps" text COLLATE "C" NOT NULL,
  PRIMARY KEY ("id")
);
CREATE TABLE tokenbroker."rotation" (
  "rev" bigint NOT NULL,
  "token" text COLLATE "C" NOT NULL,
  "id" text COLLATE "C" NOT NULL,
  "step" text COLLATE "C" NOT NULL,
  "version" bigint NOT NULL,
  "former" bigint NOT NULL,
  "notes" text COLLATE "C" NOT NULL,
  "attempt" bigint NOT NULL,
  "step_at" bigint NOT NULL,
  "due_at" bigint,
  "started_at" bigint,
  "error" text COLLATE "C" NOT NULL,
  "stuck_since" bigint,
  "last_at" bigint,
  "last_version" bigint NOT NULL,
  "last_outcome" text COLLATE "C" NOT NULL,
  "started_by" text COLLATE "C" NOT NULL,
  "ending" text COLLATE "C" NOT NULL,
  "expires_at" bigint,
  "unanswered" text COLLATE "C" NOT NULL,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("token")
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX "rotation.due_at" ON tokenbroker."rotation" ("due_at", "token")
  WHERE "due_at" IS NOT NULL;
CREATE TABLE tokenbroker."rotation_policy" (
  "rev" bigint NOT NULL,
  "token" text COLLATE "C" NOT NULL,
  "rotator" text COLLATE "C" NOT NULL,
  "settings" text COLLATE "C" NOT NULL,
  "credentials" text COLLATE "C" NOT NULL,
  "staging" text COLLATE "C" NOT NULL,
  "staging_credentials" text COLLATE "C" NOT NULL,
  "every_s" bigint,
  "cron" text COLLATE "C" NOT NULL,
  "windows" text COLLATE "C" NOT NULL,
  "call_s" bigint NOT NULL,
  "overlap_s" bigint NOT NULL,
  "deadline_s" bigint NOT NULL,
  "shares" text COLLATE "C" NOT NULL,
  "wait_s" double precision NOT NULL,
  "bake_s" double precision NOT NULL,
  "abort_above" bigint NOT NULL,
  "paused" bigint NOT NULL,
  "created_by" text COLLATE "C" NOT NULL,
  "created_at" bigint NOT NULL,
  "updated_at" bigint NOT NULL,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("token")
);
CREATE TABLE tokenbroker."seat" (
  "rev" bigint NOT NULL,
  "token" text COLLATE "C" NOT NULL,
  "member" text COLLATE "C" NOT NULL,
  "number" bigint NOT NULL,
  "lease" text COLLATE "C" NOT NULL,
  "worker" text COLLATE "C" NOT NULL,
  "taken_at" bigint NOT NULL,
  PRIMARY KEY ("token", "member", "number")
);
CREATE TABLE tokenbroker."session" (
  "rev" bigint NOT NULL,
  "session" text COLLATE "C" NOT NULL,
  "worker" text COLLATE "C" NOT NULL,
  "instance" text COLLATE "C" NOT NULL,
  "source" text COLLATE "C" NOT NULL,
  "client" text COLLATE "C" NOT NULL,
  "connected_at" bigint NOT NULL,
  "ended_at" bigint,
  "close_code" bigint NOT NULL,
  "due_at" bigint,
  PRIMARY KEY ("session")
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX "session.worker" ON tokenbroker."session" ("worker", "session");
CREATE INDEX "session.due_at" ON tokenbroker."session" ("due_at", "session")
  WHERE "due_at" IS NOT NULL;
CREATE TABLE tokenbroker."ticket" (
  "rev" bigint NOT NULL,
  "token" text COLLATE "C" NOT NULL,
  "ticket" text COLLATE "C" NOT NULL,
  "worker" text COLLATE "C" NOT NULL,
  "session" text COLLATE "C" NOT NULL,
  "instance" text COLLATE "C" NOT NULL,
  "asked_at" bigint NOT NULL,
  "until" bigint NOT NULL,
  PRIMARY KEY ("token", "ticket")
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX "ticket.until" ON tokenbroker."ticket" ("until", "token", "ticket");
CREATE TABLE tokenbroker."token" (
  "rev" bigint NOT NULL,
  "name" text COLLATE "C" NOT NULL,
  "keyring" text COLLATE "C" NOT NULL,
  "labels" text COLLATE "C" NOT NULL,
  "disabled" bigint NOT NULL,
  "current" bigint NOT NULL,
  "latest" bigint NOT NULL,
  "previous_valid_s" bigint NOT NULL,
  "created_at" bigint NOT NULL,
  "updated_at" bigint NOT NULL,
  "previous" bigint NOT NULL,
  "rollout" bigint NOT NULL,
  "rollout_share" bigint NOT NULL,
  "kind" text COLLATE "C" NOT NULL,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("name")
);
CREATE TABLE tokenbroker."use" (
  "rev" bigint NOT NULL,
  "actor" text COLLATE "C" NOT NULL,
  "grant" text COLLATE "C" NOT NULL,
  "first_at" bigint NOT NULL,
  "last_at" bigint NOT NULL,
  "last_token" text COLLATE "C" NOT NULL,
  PRIMARY KEY ("actor", "grant")
);
CREATE TABLE tokenbroker."version" (
  "rev" bigint NOT NULL,
  "token" text COLLATE "C" NOT NULL,
  "version" bigint NOT NULL,
  "stage" text COLLATE "C" NOT NULL,
  "content_type" text COLLATE "C" NOT NULL,
  "keyring" text COLLATE "C" NOT NULL,
  "data_key" text COLLATE "C" NOT NULL,
  "fmt" bigint NOT NULL,
  "sealed" bytea NOT NULL,
  "created_at" bigint NOT NULL,
  "created_by" text COLLATE "C" NOT NULL,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("token", "version")
);
CREATE INDEX "version.data_key" ON tokenbroker."version" ("data_key", "token", "version");
CREATE TABLE tokenbroker."worker" (
  "rev" bigint NOT NULL,
  "name" text COLLATE "C" NOT NULL,
  "groups" text COLLATE "C" NOT NULL,
  "auth" text COLLATE "C" NOT NULL,
  "keys" text COLLATE "C" NOT NULL,
  "labels" text COLLATE "C" NOT NULL,
  "single_session" bigint NOT NULL,
  "disabled" bigint NOT NULL,
  "created_at" bigint NOT NULL,
  "expires_at" bigint,
  "mac" bytea NOT NULL,
  PRIMARY KEY ("name")
);
CREATE FUNCTION tokenbroker.only_closing() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF OLD.closed_at IS NOT NULL OR to_jsonb(OLD) - 'rev' - 'closed_at' <> to_jsonb(NEW) - 'rev' - 'closed_at' THEN
    RAISE EXCEPTION 'a log on record may only be closed' USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER only_closing BEFORE UPDATE ON tokenbroker.audit_log
  FOR EACH ROW EXECUTE FUNCTION tokenbroker.only_closing();
CREATE FUNCTION tokenbroker.give_rights() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'tokenbroker_broker') THEN
    GRANT USAGE ON SCHEMA tokenbroker TO tokenbroker_broker;
    REVOKE ALL ON ALL TABLES IN SCHEMA tokenbroker FROM tokenbroker_broker;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tokenbroker TO tokenbroker_broker;
    REVOKE UPDATE, DELETE ON tokenbroker.audit_block, tokenbroker.checkpoint FROM tokenbroker_broker;
    REVOKE DELETE ON tokenbroker.audit_log, tokenbroker.audit_head FROM tokenbroker_broker;
    REVOKE UPDATE ON tokenbroker.feed FROM tokenbroker_broker;
    REVOKE INSERT, DELETE ON tokenbroker.feed_head, tokenbroker.health FROM tokenbroker_broker;
    REVOKE INSERT, UPDATE, DELETE ON tokenbroker.schema_version FROM tokenbroker_broker;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'tokenbroker_auditor') THEN
    GRANT USAGE ON SCHEMA tokenbroker TO tokenbroker_auditor;
    REVOKE ALL ON ALL TABLES IN SCHEMA tokenbroker FROM tokenbroker_auditor;
    GRANT SELECT ON tokenbroker.audit_block, tokenbroker.audit_log, tokenbroker.checkpoint,
      tokenbroker.schema_version TO tokenbroker_auditor;
  END IF;
END $$;
REVOKE EXECUTE ON FUNCTION tokenbroker.give_rights() FROM PUBLIC;
