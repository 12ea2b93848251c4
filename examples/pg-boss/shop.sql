-- The shop's own tables. pg-boss makes its schema by itself.
create schema shop authorization shop;
create table shop.orders (
  id bigint generated always as identity primary key,
  customer_id bigint not null,
  placed_at timestamptz not null default now(),
  fulfilled_at timestamptz
);
create index orders_customer_idx on shop.orders (customer_id);
create table shop.mails (
  order_id bigint primary key references shop.orders (id),
  sent_at timestamptz not null default now()
);
alter table shop.orders owner to shop;
alter table shop.mails owner to shop;
