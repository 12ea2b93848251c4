case when grouping(company_id) = 1 then 'all' else company_id::text end as subject
