-- Who serves this database, and who does the work that needs doing once.
CREATE TABLE "claim" (
  "rev" INTEGER NOT NULL,
  "name" TEXT NOT NULL,
  "instance" TEXT NOT NULL,
  "life" TEXT NOT NULL,
  "since" INTEGER NOT NULL,
  PRIMARY KEY ("name")
) STRICT, WITHOUT ROWID;
CREATE TABLE "replica" (
  "rev" INTEGER NOT NULL,
  "instance" TEXT NOT NULL,
  "life" TEXT NOT NULL,
  "release" TEXT NOT NULL,
  "started_at" INTEGER NOT NULL,
  "seen_at" INTEGER NOT NULL,
  "position" INTEGER NOT NULL,
  "ended_at" INTEGER,
  PRIMARY KEY ("instance")
) STRICT, WITHOUT ROWID;
