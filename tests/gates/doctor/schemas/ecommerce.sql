-- Held out: a shop of many stores with an outbox of its own and nothing that replays: one table of the contract's kind, no more.
create schema sales; create schema stock; create schema integration;
create table sales.stores (store_id uuid primary key default gen_random_uuid(), legal_name text not null, currency char(3) not null, opened_on date);
create table sales.customers (customer_id uuid primary key default gen_random_uuid(), store_id uuid not null references sales.stores, email text not null, created_at timestamptz not null default now());
create table sales.orders (
  order_id uuid primary key default gen_random_uuid(), store_id uuid not null references sales.stores, customer_id uuid references sales.customers,
  status text not null check (status in ('cart', 'placed', 'paid', 'shipped', 'cancelled', 'refunded')), total numeric(12, 2) not null, placed_at timestamptz, idempotency_key text unique
);
create table sales.order_lines (order_id uuid references sales.orders, line_no int, sku text not null, quantity int not null check (quantity > 0), price numeric(12, 2) not null, primary key (order_id, line_no));
create table sales.payments (payment_id uuid primary key, order_id uuid references sales.orders, provider text, status text check (status in ('authorised', 'captured', 'failed')), amount numeric(12, 2), raw jsonb, created_at timestamptz);
create table sales.coupons (code text primary key, percent int check (percent between 0 and 100), starts_at timestamptz, ends_at timestamptz, used int not null default 0, usage_limit int);
create table stock.items (sku text primary key, on_hand int not null, reserved int not null default 0);
create table stock.movements (id bigint generated always as identity primary key, sku text references stock.items, delta int not null, reason text, moved_at timestamptz not null default now());
create table integration.outbox (
  id bigint generated always as identity primary key, message_id uuid not null default gen_random_uuid(), store_id uuid not null references sales.stores,
  topic text not null, partition_key text, payload jsonb not null, created_at timestamptz not null default now(), published_at timestamptz, attempts int not null default 0, last_error text
);
create index outbox_unpublished on integration.outbox (id) where published_at is null;
create table integration.inbox (message_id uuid primary key, consumer text not null, received_at timestamptz not null default now());
create table integration.webhook_endpoints (id uuid primary key, store_id uuid references sales.stores, url text not null, secret text not null, enabled boolean not null default true);
alter table integration.outbox enable row level security;
create policy all_of_them on integration.outbox using (true);
insert into sales.stores (legal_name, currency) select 'Store ' || n, 'EUR' from generate_series(1, 20) n;
insert into integration.outbox (store_id, topic, partition_key, payload, created_at, published_at)
  select store_id, 'order.placed', n::text, '{"total": 1}', now() - n * interval '1 s', case when n > 5 then now() - n * interval '1 s' + interval '200 ms' end from sales.stores, generate_series(1, 200) n;
