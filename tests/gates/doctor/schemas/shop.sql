-- A random application, in the style of Chinook: nothing of it is a queue.
create table "Artist" ("ArtistId" int primary key, "Name" varchar(120));
create table "Album" ("AlbumId" int primary key, "Title" varchar(160) not null, "ArtistId" int not null references "Artist");
create table "Employee" ("EmployeeId" int primary key, "LastName" varchar(20), "FirstName" varchar(20), "Title" varchar(30), "ReportsTo" int, "HireDate" timestamp);
create table "Customer" ("CustomerId" int primary key, "FirstName" varchar(40), "LastName" varchar(20), "Company" varchar(80), "Email" varchar(60), "SupportRepId" int references "Employee");
create table "Invoice" ("InvoiceId" int primary key, "CustomerId" int not null references "Customer", "InvoiceDate" timestamp not null, "Total" numeric(10,2) not null);
create table "InvoiceLine" ("InvoiceLineId" int primary key, "InvoiceId" int not null references "Invoice", "TrackId" int not null, "UnitPrice" numeric(10,2), "Quantity" int);
create table "MediaType" ("MediaTypeId" int primary key, "Name" varchar(120));
create table "Genre" ("GenreId" int primary key, "Name" varchar(120));
create table "Playlist" ("PlaylistId" int primary key, "Name" varchar(120));
create table "PlaylistTrack" ("PlaylistId" int, "TrackId" int, primary key ("PlaylistId", "TrackId"));
create table "Track" ("TrackId" int primary key, "Name" varchar(200), "AlbumId" int references "Album", "Composer" varchar(220), "Milliseconds" int);
create table events (id serial primary key, title text not null, venue text, starts_at timestamptz, organizer_id int);
create table tasks (id serial primary key, title text, done boolean, due_on date, assignee_id int);
create table accounts (id serial primary key, name text, balance numeric);
create table history (id serial primary key, page text, visited_at timestamptz);
