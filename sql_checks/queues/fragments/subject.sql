case when grouping(queue) = 0 then 'queue ' || queue when grouping(tenant) = 0 then 'tenant ' || tenant else 'all' end as subject
