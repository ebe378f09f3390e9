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
CREATE TABLE "root" (
  "rev" INTEGER NOT NULL,
  "id" TEXT NOT NULL,
  "created_at" INTEGER NOT NULL,
  "wraps" TEXT NOT NULL,
  PRIMARY KEY ("id")
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
  "mac" BLOB NOT NULL,
  PRIMARY KEY ("name")
) STRICT;
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
