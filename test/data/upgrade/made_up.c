
PG_FUNCTION_INFO_V1(rinq_made_up);

Datum
rinq_made_up(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text("made up"));
}
