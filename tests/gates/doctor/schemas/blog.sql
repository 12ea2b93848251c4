-- Held out: a blog with members, comments and a mailing list; nothing of it is a replay service.
create type post_status as enum ('draft', 'scheduled', 'published', 'archived');
create table users (
  id bigint generated always as identity primary key, email text not null unique, display_name text not null, password_hash text not null,
  role text not null default 'reader' check (role in ('reader', 'author', 'editor', 'admin')), created_at timestamptz not null default now()
);
create table posts (
  id bigint generated always as identity primary key, author_id bigint not null references users, slug text not null unique, title text not null,
  body text not null, status post_status not null default 'draft', published_at timestamptz, updated_at timestamptz, version int not null default 1
);
create table tags (id serial primary key, name text not null unique);
create table post_tags (post_id bigint references posts, tag_id int references tags, primary key (post_id, tag_id));
create table comments (
  id bigint generated always as identity primary key, post_id bigint not null references posts on delete cascade, user_id bigint references users,
  body text not null, status text not null default 'pending' check (status in ('pending', 'approved', 'spam', 'rejected')), created_at timestamptz not null default now()
);
create table newsletters (id bigint generated always as identity primary key, subject text, html text, sent_at timestamptz, recipients int);
create table newsletter_deliveries (newsletter_id bigint references newsletters, user_id bigint references users, attempts int not null default 0, sent_at timestamptz, error text, primary key (newsletter_id, user_id));
create table page_views (post_id bigint, day date, hits int not null default 0, primary key (post_id, day));
create table sessions (token text primary key, user_id bigint references users, expires_at timestamptz not null);
create table site_settings (key text primary key, value jsonb not null, updated_at timestamptz);
create table revisions (id bigint generated always as identity primary key, post_id bigint references posts, editor text, diff jsonb, created_at timestamptz not null default now());
create view popular_posts as select p.id, p.title, sum(v.hits) as hits from posts p join page_views v on v.post_id = p.id group by p.id;
create function publish_due() returns int language sql as $$ update posts set status = 'published' where status = 'scheduled' and published_at <= now(); select 1 $$;
insert into users (email, display_name, password_hash) select n || '@example.test', 'reader ' || n, md5(n::text) from generate_series(1, 200) n;
insert into posts (author_id, slug, title, body, status) select 1 + n % 200, 'post-' || n, 'Post ' || n, 'Text', 'published' from generate_series(1, 500) n;
