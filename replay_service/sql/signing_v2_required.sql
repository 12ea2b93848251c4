-- Whether v1 signatures are refused. The flag is global; the nil UUID stands for no company.
SELECT public.is_feature_enabled('security.signing_v2_required', '00000000-0000-0000-0000-000000000000'::uuid)
