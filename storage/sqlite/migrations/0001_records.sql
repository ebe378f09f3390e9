CREATE TABLE "feed" (
  "position" INTEGER PRIMARY KEY AUTOINCREMENT,
  "table" TEXT NOT NULL,
  "key" TEXT NOT NULL
) STRICT;
CREATE TABLE "health" ("checks" INTEGER NOT NULL) STRICT;
INSERT INTO "health" VALUES (0);
CREATE TABLE "admin" (
  "rev" INTEGER NOT NULL,
  "name" TEXT NOT NULL,
  "roles" TEXT NOT NULL,
  "credential_sha256" BLOB NOT NULL,
  "disabled" INTEGER NOT NULL,
  "created_by" TEXT NOT NULL,
  "created_at" INTEGER NOT NULL,
  "expires_at" INTEGER,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("name")
) STRICT;
CREATE TABLE "audit_block" (
  "rev" INTEGER NOT NULL,
  "log" INTEGER NOT NULL,
  "seq" INTEGER NOT NULL,
  "count" INTEGER NOT NULL,
  "entries" BLOB NOT NULL,
  PRIMARY KEY ("log", "seq")
) STRICT;
CREATE TABLE "audit_log" (
  "rev" INTEGER NOT NULL,
  "log" INTEGER NOT NULL,
  "instance" TEXT NOT NULL,
  "origin" TEXT NOT NULL,
  "previous" INTEGER NOT NULL,
  "public_key" BLOB NOT NULL,
  "opened_at" INTEGER NOT NULL,
  "closed_at" INTEGER,
  PRIMARY KEY ("log")
) STRICT;
CREATE INDEX "audit_log.instance" ON "audit_log" ("instance", "log");
CREATE TABLE "checkpoint" (
  "rev" INTEGER NOT NULL,
  "log" INTEGER NOT NULL,
  "size" INTEGER NOT NULL,
  "note" TEXT NOT NULL,
  "signed_at" INTEGER NOT NULL,
  PRIMARY KEY ("log", "size")
) STRICT, WITHOUT ROWID;
CREATE TABLE "data_key" (
  "rev" INTEGER NOT NULL,
  "id" TEXT NOT NULL,
  "keyring" TEXT NOT NULL,
  "state" TEXT NOT NULL,
  "created_at" INTEGER NOT NULL,
  "seals_reserved" INTEGER NOT NULL,
  "commitment" BLOB NOT NULL,
  "wraps" TEXT NOT NULL,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("id")
) STRICT;
CREATE INDEX "data_key.keyring" ON "data_key" ("keyring", "id");
CREATE TABLE "enrolment" (
  "rev" INTEGER NOT NULL,
  "id" TEXT NOT NULL,
  "secret_sha256" BLOB NOT NULL,
  "worker" TEXT NOT NULL,
  "groups" TEXT NOT NULL,
  "created_by" TEXT NOT NULL,
  "created_at" INTEGER NOT NULL,
  "expires_at" INTEGER NOT NULL,
  "used_at" INTEGER,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("id")
) STRICT;
CREATE INDEX "enrolment.expires_at" ON "enrolment" ("expires_at", "id");
CREATE TABLE "grant_" (
  "rev" INTEGER NOT NULL,
  "id" TEXT NOT NULL,
  "subject" TEXT NOT NULL,
  "pattern" TEXT NOT NULL,
  "ttl_s" INTEGER NOT NULL,
  "max_ttl_s" INTEGER NOT NULL,
  "source_cidrs" TEXT NOT NULL,
  "windows" TEXT NOT NULL,
  "created_by" TEXT NOT NULL,
  "created_at" INTEGER NOT NULL,
  "expires_at" INTEGER,
  "previous" INTEGER NOT NULL,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("id")
) STRICT;
CREATE INDEX "grant_.subject" ON "grant_" ("subject", "id");
CREATE TABLE "idempotency" (
  "rev" INTEGER NOT NULL,
  "admin" TEXT NOT NULL,
  "idempotency_key" TEXT NOT NULL,
  "request_sha256" BLOB NOT NULL,
  "status" INTEGER NOT NULL,
  "location" TEXT NOT NULL,
  "expires_at" INTEGER NOT NULL,
  PRIMARY KEY ("admin", "idempotency_key")
) STRICT;
CREATE INDEX "idempotency.expires_at" ON "idempotency" ("expires_at", "admin", "idempotency_key");
CREATE TABLE "issued" (
  "rev" INTEGER NOT NULL,
  "lease" TEXT NOT NULL,
  "token" TEXT NOT NULL,
  "worker" TEXT NOT NULL,
  "issuer" TEXT NOT NULL,
  "state" TEXT NOT NULL,
  "handle" TEXT NOT NULL,
  "content_type" TEXT NOT NULL,
  "keyring" TEXT NOT NULL,
  "data_key" TEXT NOT NULL,
  "fmt" INTEGER NOT NULL,
  "sealed" BLOB NOT NULL,
  "made_at" INTEGER NOT NULL,
  "ends_at" INTEGER,
  "due_at" INTEGER,
  "ended_at" INTEGER,
  "attempt" INTEGER NOT NULL,
  "error" TEXT NOT NULL,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("lease")
) STRICT;
CREATE INDEX "issued.token" ON "issued" ("token", "worker", "lease");
CREATE INDEX "issued.data_key" ON "issued" ("data_key", "lease");
CREATE INDEX "issued.state" ON "issued" ("state", "lease");
CREATE INDEX "issued.due_at" ON "issued" ("due_at", "lease")
  WHERE "due_at" IS NOT NULL;
CREATE TABLE "issuer" (
  "rev" INTEGER NOT NULL,
  "token" TEXT NOT NULL,
  "issuer" TEXT NOT NULL,
  "settings" TEXT NOT NULL,
  "credentials" TEXT NOT NULL,
  "leases_max" INTEGER NOT NULL,
  "worker_leases_max" INTEGER NOT NULL,
  "created_by" TEXT NOT NULL,
  "created_at" INTEGER NOT NULL,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("token")
) STRICT;
CREATE TABLE "keyring" (
  "rev" INTEGER NOT NULL,
  "name" TEXT NOT NULL,
  "kms_keys" TEXT NOT NULL,
  "authorize" TEXT NOT NULL,
  "active_data_key" TEXT NOT NULL,
  "created_at" INTEGER NOT NULL,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("name")
) STRICT;
CREATE TABLE "lease" (
  "rev" INTEGER NOT NULL,
  "lease" TEXT NOT NULL,
  "token" TEXT NOT NULL,
  "version" INTEGER NOT NULL,
  "worker" TEXT NOT NULL,
  "session" TEXT NOT NULL,
  "instance" TEXT NOT NULL,
  "grant" TEXT NOT NULL,
  "state" TEXT NOT NULL,
  "ttl_s" REAL NOT NULL,
  "granted_at" INTEGER NOT NULL,
  "expires_at" INTEGER NOT NULL,
  "max_expires_at" INTEGER NOT NULL,
  "due_at" INTEGER,
  "ended_at" INTEGER,
  "reason" TEXT NOT NULL,
  "acked_version" INTEGER NOT NULL,
  "ack_failed" TEXT NOT NULL,
  "wiped_at" INTEGER,
  "prune_at" INTEGER,
  "stage" TEXT NOT NULL,
  "report" TEXT,
  "version_at" INTEGER,
  "pushed_at" INTEGER,
  "acked_at" INTEGER,
  "failed_at" INTEGER,
  "past" TEXT NOT NULL,
  "member" TEXT NOT NULL,
  PRIMARY KEY ("lease")
) STRICT, WITHOUT ROWID;
CREATE INDEX "lease.due_at" ON "lease" ("due_at", "lease")
  WHERE "due_at" IS NOT NULL;
CREATE INDEX "lease.prune_at" ON "lease" ("prune_at", "lease")
  WHERE "prune_at" IS NOT NULL;
CREATE TABLE "manifest" (
  "rev" INTEGER NOT NULL,
  "kind" TEXT NOT NULL,
  "count" INTEGER NOT NULL,
  "digest" BLOB NOT NULL,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("kind")
) STRICT;
CREATE TABLE "member" (
  "rev" INTEGER NOT NULL,
  "token" TEXT NOT NULL,
  "member" TEXT NOT NULL,
  "cool_until" INTEGER,
  "quarantined_at" INTEGER,
  "reason" TEXT NOT NULL,
  "changed_at" INTEGER NOT NULL,
  "version" INTEGER NOT NULL,
  "rejected_by" TEXT NOT NULL,
  "rested_by" TEXT NOT NULL,
  PRIMARY KEY ("token", "member")
) STRICT, WITHOUT ROWID;
CREATE TABLE "pool" (
  "rev" INTEGER NOT NULL,
  "token" TEXT NOT NULL,
  "members" TEXT NOT NULL,
  "leases_max" INTEGER NOT NULL,
  "cool_down_s" INTEGER NOT NULL,
  "witnesses" INTEGER NOT NULL,
  "created_by" TEXT NOT NULL,
  "created_at" INTEGER NOT NULL,
  "updated_at" INTEGER NOT NULL,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("token")
) STRICT;
CREATE TABLE "rollout" (
  "rev" INTEGER NOT NULL,
  "token" TEXT NOT NULL,
  "id" TEXT NOT NULL,
  "version" INTEGER NOT NULL,
  "before" INTEGER NOT NULL,
  "shares" TEXT NOT NULL,
  "wait_s" REAL NOT NULL,
  "bake_s" REAL NOT NULL,
  "abort_above" INTEGER NOT NULL,
  "retire" TEXT NOT NULL,
  "deadline_s" REAL NOT NULL,
  "state" TEXT NOT NULL,
  "step" INTEGER NOT NULL,
  "step_at" INTEGER NOT NULL,
  "started_by" TEXT NOT NULL,
  "started_at" INTEGER NOT NULL,
  "due_at" INTEGER,
  "answered_at" INTEGER,
  "ended_at" INTEGER,
  "reason" TEXT NOT NULL,
  "failed" TEXT NOT NULL,
  "unanswered" TEXT NOT NULL,
  "holders" INTEGER NOT NULL,
  "confirmed" INTEGER NOT NULL,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("token")
) STRICT;
CREATE INDEX "rollout.due_at" ON "rollout" ("due_at", "token")
  WHERE "due_at" IS NOT NULL;
CREATE TABLE "rollout_tally" (
  "rev" INTEGER NOT NULL,
  "token" TEXT NOT NULL,
  "instance" TEXT NOT NULL,
  "id" TEXT NOT NULL,
  "step" INTEGER NOT NULL,
  "holders" INTEGER NOT NULL,
  "confirmed" INTEGER NOT NULL,
  "failed_count" INTEGER NOT NULL,
  "silent_count" INTEGER NOT NULL,
  "lost_count" INTEGER NOT NULL,
  "waiting" INTEGER NOT NULL,
  "failed" TEXT NOT NULL,
  "silent" TEXT NOT NULL,
  "lost" TEXT NOT NULL,
  "seen_at" INTEGER NOT NULL,
  PRIMARY KEY ("token", "instance")
) STRICT, WITHOUT ROWID;
CREATE TABLE "root" (
  "rev" INTEGER NOT NULL,
  "id" TEXT NOT NULL,
  "created_at" INTEGER NOT NULL,
  "wraps" TEXT NOT NULL,
  PRIMARY KEY ("id")
) STRICT, WITHOUT ROWID;
CREATE TABLE "rotation" (
  "rev" INTEGER NOT NULL,
  "token" TEXT NOT NULL,
  "id" TEXT NOT NULL,
  "step" TEXT NOT NULL,
  "version" INTEGER NOT NULL,
  "former" INTEGER NOT NULL,
  "notes" TEXT NOT NULL,
  "attempt" INTEGER NOT NULL,
  "step_at" INTEGER NOT NULL,
  "due_at" INTEGER,
  "started_at" INTEGER,
  "error" TEXT NOT NULL,
  "stuck_since" INTEGER,
  "last_at" INTEGER,
  "last_version" INTEGER NOT NULL,
  "last_outcome" TEXT NOT NULL,
  "started_by" TEXT NOT NULL,
  "ending" TEXT NOT NULL,
  "expires_at" INTEGER,
  "unanswered" TEXT NOT NULL,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("token")
) STRICT;
CREATE INDEX "rotation.due_at" ON "rotation" ("due_at", "token")
  WHERE "due_at" IS NOT NULL;
CREATE TABLE "rotation_policy" (
  "rev" INTEGER NOT NULL,
  "token" TEXT NOT NULL,
  "rotator" TEXT NOT NULL,
  "settings" TEXT NOT NULL,
  "credentials" TEXT NOT NULL,
  "staging" TEXT NOT NULL,
  "staging_credentials" TEXT NOT NULL,
  "every_s" INTEGER,
  "cron" TEXT NOT NULL,
  "windows" TEXT NOT NULL,
  "call_s" INTEGER NOT NULL,
  "overlap_s" INTEGER NOT NULL,
  "deadline_s" INTEGER NOT NULL,
  "shares" TEXT NOT NULL,
  "wait_s" REAL NOT NULL,
  "bake_s" REAL NOT NULL,
  "abort_above" INTEGER NOT NULL,
  "paused" INTEGER NOT NULL,
  "created_by" TEXT NOT NULL,
  "created_at" INTEGER NOT NULL,
  "updated_at" INTEGER NOT NULL,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("token")
) STRICT;
CREATE TABLE "seat" (
  "rev" INTEGER NOT NULL,
  "token" TEXT NOT NULL,
  "member" TEXT NOT NULL,
  "number" INTEGER NOT NULL,
  "lease" TEXT NOT NULL,
  "worker" TEXT NOT NULL,
  "taken_at" INTEGER NOT NULL,
  PRIMARY KEY ("token", "member", "number")
) STRICT, WITHOUT ROWID;
CREATE TABLE "session" (
  "rev" INTEGER NOT NULL,
  "session" TEXT NOT NULL,
  "worker" TEXT NOT NULL,
  "instance" TEXT NOT NULL,
  "source" TEXT NOT NULL,
  "client" TEXT NOT NULL,
  "connected_at" INTEGER NOT NULL,
  "ended_at" INTEGER,
  "close_code" INTEGER NOT NULL,
  "due_at" INTEGER,
  PRIMARY KEY ("session")
) STRICT, WITHOUT ROWID;
CREATE INDEX "session.worker" ON "session" ("worker", "session");
CREATE INDEX "session.due_at" ON "session" ("due_at", "session")
  WHERE "due_at" IS NOT NULL;
CREATE TABLE "ticket" (
  "rev" INTEGER NOT NULL,
  "token" TEXT NOT NULL,
  "ticket" TEXT NOT NULL,
  "worker" TEXT NOT NULL,
  "session" TEXT NOT NULL,
  "instance" TEXT NOT NULL,
  "asked_at" INTEGER NOT NULL,
  "until" INTEGER NOT NULL,
  PRIMARY KEY ("token", "ticket")
) STRICT, WITHOUT ROWID;
CREATE INDEX "ticket.until" ON "ticket" ("until", "token", "ticket");
CREATE TABLE "token" (
  "rev" INTEGER NOT NULL,
  "name" TEXT NOT NULL,
  "keyring" TEXT NOT NULL,
  "labels" TEXT NOT NULL,
  "disabled" INTEGER NOT NULL,
  "current" INTEGER NOT NULL,
  "latest" INTEGER NOT NULL,
  "previous_valid_s" INTEGER NOT NULL,
  "created_at" INTEGER NOT NULL,
  "updated_at" INTEGER NOT NULL,
  "previous" INTEGER NOT NULL,
  "rollout" INTEGER NOT NULL,
  "rollout_share" INTEGER NOT NULL,
  "kind" TEXT NOT NULL,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("name")
) STRICT;
CREATE TABLE "use" (
  "rev" INTEGER NOT NULL,
  "actor" TEXT NOT NULL,
  "grant" TEXT NOT NULL,
  "first_at" INTEGER NOT NULL,
  "last_at" INTEGER NOT NULL,
  "last_token" TEXT NOT NULL,
  PRIMARY KEY ("actor", "grant")
) STRICT, WITHOUT ROWID;
CREATE TABLE "version" (
  "rev" INTEGER NOT NULL,
  "token" TEXT NOT NULL,
  "version" INTEGER NOT NULL,
  "stage" TEXT NOT NULL,
  "content_type" TEXT NOT NULL,
  "keyring" TEXT NOT NULL,
  "data_key" TEXT NOT NULL,
  "fmt" INTEGER NOT NULL,
  "sealed" BLOB NOT NULL,
  "created_at" INTEGER NOT NULL,
  "created_by" TEXT NOT NULL,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("token", "version")
) STRICT;
CREATE INDEX "version.data_key" ON "version" ("data_key", "token", "version");
CREATE TABLE "worker" (
  "rev" INTEGER NOT NULL,
  "name" TEXT NOT NULL,
  "groups" TEXT NOT NULL,
  "auth" TEXT NOT NULL,
  "keys" TEXT NOT NULL,
  "labels" TEXT NOT NULL,
  "single_session" INTEGER NOT NULL,
  "disabled" INTEGER NOT NULL,
  "created_at" INTEGER NOT NULL,
  "expires_at" INTEGER,
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("name")
) STRICT;
