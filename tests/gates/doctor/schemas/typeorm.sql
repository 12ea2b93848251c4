-- In the style of TypeORM: quoted camelCase, an enum type, uuid ids, a schema of its own.
create schema messaging;
create type messaging."letterState" as enum ('open', 'inFlight', 'closed', 'dismissed');
create table messaging."Workspace" (id uuid primary key default gen_random_uuid(), label text not null);
create table messaging."DeadLetterEvent" (
  id uuid primary key default gen_random_uuid(), "workspaceId" uuid not null references messaging."Workspace", "eventId" uuid,
  "eventName" text not null, "streamId" text, "eventData" jsonb not null, "errorName" text not null, "errorText" text,
  "retryCount" int not null default 0, "maxTries" int not null default 5, "nextTryAt" timestamp not null default now(),
  state messaging."letterState" not null default 'open', "createdAt" timestamptz not null default now()
);
create table messaging."OutboxEvent" (
  id bigint generated always as identity primary key, "eventId" uuid not null, "workspaceId" uuid not null references messaging."Workspace",
  "eventName" text not null, "streamId" text, "eventData" jsonb not null, "enqueuedAt" timestamptz not null default now(),
  "dispatchedAt" timestamptz, "gaveUpAt" timestamptz, "lockedUntil" timestamptz, "attemptCount" int not null default 0,
  "dueAt" timestamptz not null default now(), "replayId" uuid
);
create table messaging."ReplayRequest" (
  id uuid primary key, "dedupeKey" text not null, "workspaceId" uuid not null, "triggeredBy" text, "bodyHash" text, status text,
  "totalCount" int, "succeededCount" int, "failedCount" int, "startedAt" timestamptz, "finishedAt" timestamptz,
  unique ("dedupeKey", "workspaceId")
);
create table messaging."FeatureToggle" (
  "toggleKey" text not null, "workspaceId" uuid, "isActive" boolean not null, "rolloutPercent" int not null, "updatedAt" timestamptz,
  revision bigint not null default 1, unique nulls not distinct ("toggleKey", "workspaceId")
);
create table messaging."AgentSwitch" ("workspaceId" uuid unique nulls not distinct, "isPaused" boolean not null, "pausedReason" text, "updatedAt" timestamptz);
create table messaging."RateLimitBucket" ("bucketKey" text primary key, "requestTimes" timestamptz[] not null, "requestCount" int, "windowStart" timestamptz);
create table public."User" (id uuid primary key, email text, "passwordHash" text);
create table public."Session" (id uuid primary key, "userId" uuid, "expiresAt" timestamptz);
create function messaging."flagEnabled"("workspaceId" uuid, "toggleKey" text) returns boolean language sql stable as 'select true';
