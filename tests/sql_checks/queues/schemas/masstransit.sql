create table "OutboxState" (
  "OutboxId" uuid primary key default gen_random_uuid(),
  "LockId" uuid not null default gen_random_uuid(),
  "RowVersion" bytea,
  "Created" timestamptz not null default now(),
  "Delivered" timestamptz,
  "LastSequenceNumber" bigint
);
create index "IX_OutboxState_Created" on "OutboxState" ("Created");
create table "OutboxMessage" (
  "SequenceNumber" bigserial primary key,
  "EnqueueTime" timestamptz,
  "SentTime" timestamptz not null default now(),
  "MessageId" uuid not null default gen_random_uuid(),
  "OutboxId" uuid,
  "InboxMessageId" uuid,
  "InboxConsumerId" uuid,
  "Body" text not null default '{}'
);
create table "InboxState" (
  "Id" bigserial primary key,
  "MessageId" uuid not null default gen_random_uuid(),
  "ConsumerId" uuid not null default gen_random_uuid(),
  "LockId" uuid not null default gen_random_uuid(),
  "Received" timestamptz not null default now(),
  "ReceiveCount" integer not null default 1,
  "Consumed" timestamptz,
  "Delivered" timestamptz
);
create unique index "AK_InboxState" on "InboxState" ("MessageId", "ConsumerId");
