-- Held out: written after the guesses, in the style of Spring and JPA, in words of a bank.
create table participant (participant_id varchar(36) primary key, legal_name varchar(200));
create table integration_failure (
  failure_id varchar(36) primary key, participant_id varchar(36) not null references participant, message_ref varchar(36), message_class varchar(200) not null,
  business_key varchar(200), message_content jsonb not null, failure_category varchar(100) not null, stack_summary text, redelivery_count int not null default 0,
  redelivery_limit int not null default 5, next_redelivery timestamptz not null default now(),
  processing_state varchar(20) check (processing_state in ('OPEN', 'RETRYING', 'SETTLED', 'WITHDRAWN')), recorded_on timestamptz not null default now()
);
create table outbound_message (
  seq bigserial primary key, message_ref varchar(36) not null, participant_id varchar(36) not null references participant, message_class varchar(200) not null,
  business_key varchar(200), message_content jsonb not null, recorded_on timestamptz not null default now(), sent_on timestamptz, expired_on timestamptz,
  lock_until timestamptz, send_attempts int not null default 0, next_send timestamptz not null default now(), recovery_id varchar(36)
);
create table recovery_run (
  recovery_id varchar(36) primary key, client_reference varchar(200) not null, participant_id varchar(36) not null, operator varchar(100),
  request_hash varchar(64), run_state varchar(20) check (run_state in ('RUNNING', 'FINISHED', 'INTERRUPTED', 'FAILED')), planned int, ok int, nok int,
  begin_ts timestamptz, end_ts timestamptz, constraint once unique (client_reference, participant_id)
);
create table capability_switch (
  switch_name varchar(100) not null, participant_id varchar(36), is_on boolean not null, share_pct int not null, remark text, changed_on timestamptz, rev bigint
);
create table compliance_journal (
  entry_no bigserial primary key, verb varchar(100) not null, principal varchar(100), subject_participant varchar(36), items int, items_ok int, items_failed int,
  context jsonb, correlation varchar(64), entry_ts timestamptz, prior_digest varchar(64), entry_digest varchar(64)
);
create table address (address_id varchar(36) primary key, street varchar(200), city varchar(100), zip varchar(10));
create table payment (payment_id varchar(36) primary key, participant_id varchar(36), amount numeric(18,2), currency varchar(3), booked_on date, state varchar(20));
create table batch_job_execution (job_execution_id bigint primary key, start_time timestamp, end_time timestamp, status varchar(10), exit_code varchar(2500));
