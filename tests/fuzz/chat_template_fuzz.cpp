// Chat templates: any text is refused, or renders within its budget.
#include <cstdint>
#include <string_view>

#include "engine/text/jinja/template.h"

using namespace kvfs::text::jinja;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto parsed = Template::parse({reinterpret_cast<const char*>(data), size});
  if (!parsed) return 0;
  const Conversation conversation{
      {{"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Hello"}, {"user", "Bye"}},
      true,
      "<s>",
      "</s>",
      1767614400};
  const auto text = parsed->render(conversation);
  if (text && text->size() > (std::size_t{64} << 20)) __builtin_trap();
  return 0;
}
