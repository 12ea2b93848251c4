-- Held out: written after the guesses, in the style of Entity Framework: PascalCase, int ids, a schema of its own.
create schema relay;
create table relay."Subscribers" ("Id" int generated always as identity primary key, "Title" text not null);
create table relay."PoisonEntries" (
  "Id" int generated always as identity primary key, "SubscriberId" int not null references relay."Subscribers", "NotificationId" int, "NotificationKind" text not null,
  "OrderingScope" text, "Json" jsonb not null, "FaultCode" text not null, "FaultText" text, "DeliveryCount" int not null, "DeliveryLimit" int not null,
  "HoldUntil" timestamptz, "Condition" int not null, "ArrivedAt" timestamptz not null
);
create table relay."PendingNotifications" (
  "Id" bigint generated always as identity primary key, "NotificationId" int not null, "SubscriberId" int not null, "NotificationKind" text not null,
  "OrderingScope" text, "Json" jsonb not null, "ArrivedAt" timestamptz not null, "PushedAt" timestamptz, "DroppedAt" timestamptz, "OwnedUntil" timestamptz,
  "DeliveryCount" int not null, "PushAfter" timestamptz not null
);
create table relay."Reprocessings" (
  "Id" int generated always as identity primary key, "RequestToken" text not null, "SubscriberId" int not null, "StartedBy" text, "RequestDigest" text,
  "Outcome" text, "Planned" int, "Succeeded" int, "Faulted" int, "StartedAt" timestamptz, "EndedAt" timestamptz, unique ("RequestToken", "SubscriberId")
);
create table relay."Toggles" ("Key" text not null, "SubscriberId" int, "On" boolean not null, "Percent" int not null, "ChangedAt" timestamptz, unique nulls not distinct ("Key", "SubscriberId"));
create table relay."Throttles" ("Key" text primary key, "Stamps" timestamptz[] not null, "Total" int, "Since" timestamptz);
create table "__EFMigrationsHistory" ("MigrationId" varchar(150) primary key, "ProductVersion" varchar(32) not null);
create table "AspNetUsers" ("Id" text primary key, "UserName" text, "Email" text, "PasswordHash" text);
