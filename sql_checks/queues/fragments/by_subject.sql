group by grouping sets ((), (queue), (tenant))
having (grouping(queue) = 1 or queue is not null) and (grouping(tenant) = 1 or tenant is not null)
