-- Who serves this database, and who does the work that needs doing once.
CREATE TABLE tokenbroker."claim" (
  "rev" bigint NOT NULL,
  "name" text COLLATE "C" NOT NULL,
  "instance" text COLLATE "C" NOT NULL,
  "life" text COLLATE "C" NOT NULL,
  "since" bigint NOT NULL,
  PRIMARY KEY ("name")
);
CREATE TABLE tokenbroker."replica" (
  "rev" bigint NOT NULL,
  "instance" text COLLATE "C" NOT NULL,
  "life" text COLLATE "C" NOT NULL,
  "release" text COLLATE "C" NOT NULL,
  "started_at" bigint NOT NULL,
  "seen_at" bigint NOT NULL,
  "position" bigint NOT NULL,
  "ended_at" bigint,
  PRIMARY KEY ("instance")
);
